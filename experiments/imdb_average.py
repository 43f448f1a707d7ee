"""The classifiers of two runs of `imdb.py --cpu`, the second of which went on from the first's language models: the
mean of their weights, judged on the held-out films and then, once, on the test half.

    python experiments/imdb_average.py FOLDER imdb imdb2 --out imdb3

FOLDER holds train, unsup and test as JSON lines. The network of a direction is as large as one of the two; that the
mean of two fine-tuned networks is better than either is known from Wortsman and others (2022, "Model soups"). OUT is a
folder as `imdb.py` leaves it, for `imdb_sentiment.py`."""
import numpy as np, torch
from pathlib import Path
from runs import Log, parser, use_threads
from imdb import Road
from training import here
from ulmfit_nb.classifier import load_classifier

directions = 'fwd','bwd'

def mean_weights(first, second, share=.5):
    "`second`, with weights that are its own by `share` and those of `first` by the rest"
    if [list(o) for o in first.dls.vocab]!=[list(o) for o in second.dls.vocab]:
        raise SystemExit('the two runs know other words or labels: their weights have other meanings')
    a,b = (o.model.state_dict() for o in (first,second))
    second.model.load_state_dict({k:share*v+(1-share)*a[k] if v.is_floating_point() else v for k,v in b.items()})
    return second

def judged(p, y):
    "Accuracy and loss of probabilities"
    return dict(accuracy=float((p.argmax(1)==y).mean()), valid_loss=float(-np.log(p[range(len(y)),y]).mean()))

class Averaged(Road):
    def __init__(self, folder, runs, out):
        logs = [Log(o/'log.jsonl') for o in runs]
        settings = logs[1].rows[0]['settings']
        if settings['refit']:
            raise SystemExit(f'{runs[1]} has no classifiers that were judged on other films: imdb.py --cpu')
        super().__init__(folder, out, settings['pretrained'], settings)
        self.runs,self.settings,self.recipe = runs,settings,logs[1].find(job='chosen')['recipe']
        self.held = self.train[self.train.is_valid].reset_index(drop=True)

    def both(self, direction): return [load_classifier(o/self.final(direction, self.recipe, 0)) for o in self.runs]

    def average(self, direction):
        "Exported beside its answers for the held-out films"
        name,learn = self.final(direction, self.recipe, 0),mean_weights(*self.both(direction))
        learn.path = self.out
        learn.export(name)
        labels = list(learn.dls.vocab[1])
        y = np.array([labels.index(o) for o in self.held.label])
        with learn.no_bar(): p = learn.predict_proba(list(self.held.text)).cpu().numpy()
        np.savez(self.out/f'{name}.npz', p=p, y=y)
        return dict(judged(p, y), n=len(y))

    def compared(self):
        "Both directions on the held-out films: each run, and the mean of their weights"
        def both(folder):
            held = [np.load(folder/f'tuned_{d}_{self.recipe}_0.npz') for d in directions]
            return judged(np.mean([o['p'] for o in held], 0), held[0]['y'].astype(int))
        return {'first run':both(self.runs[0]), 'second run':both(self.runs[1]), 'mean of their weights':both(self.out)}

def main(args=None):
    p = parser(__doc__, out='imdb3', threads=1)
    p.add_argument('runs', nargs=2, type=Path, help='Folders of the two runs')
    a = p.parse_args(args)
    use_threads(a.threads)
    a.out.mkdir(parents=True, exist_ok=True)
    log,road = Log(a.out/'log.jsonl'),Averaged(a.folder, [o.absolute() for o in a.runs], a.out.absolute())
    log.run(lambda: dict(settings=road.settings, valid=len(road.held)), job='data')
    log.run(lambda: dict(recipe=road.recipe), job='chosen')
    for d in directions: log.run(lambda: road.average(d), job='average', direction=d)
    found = log.run(lambda: dict(results=road.compared()), job='compared')['results']
    for k,v in found.items(): print(f"{k}: {v['accuracy']:.4f} of {len(road.held)} reviews of held-out films")
    r = log.run(lambda: {**road.look(list(directions), [1], road.recipe), **here()}, job='test',
        directions=list(directions), seeds=[1])['results']
    print({k:round(v['accuracy'], 4) for k,v in r.items() if k!='errors'})

if __name__=='__main__': main()
