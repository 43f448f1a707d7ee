"What is drawn is what the model says; nothing that is no text is ever written"
import numpy as np, pytest, torch
from fastai.basics import ColReader, DataBlock, RandomSplitter, set_seed
from scipy.stats import chisquare
from ulmfit_nb.awd_lstm import AWD_LSTM, get_language_model
from ulmfit_nb.batching import TextBlock
from ulmfit_nb.generation import generate_ids, next_probs
from ulmfit_nb.language_model import language_model_learner
from ulmfit_nb.texts import sentences
from ulmfit_nb.tokenization import CharTokenizer, SubwordTokenizer, text_spec_tok

def toy(vocab_sz=30, seed=0):
    set_seed(seed)
    return get_language_model(AWD_LSTM, vocab_sz, config=dict(emb_sz=8, n_hid=12)).eval()

def data(tok=None, **kw):
    return DataBlock(TextBlock.from_df('text', tok=tok, is_lm=True, min_freq=1, **kw), get_x=ColReader('text'), splitter=RandomSplitter(0.1, seed=1)).dataloaders(sentences()[:200], bs=8, seq_len=20)

def learner(dls): return language_model_learner(dls, AWD_LSTM, config=dict(emb_sz=8, n_hid=12), pretrained=False)

@pytest.mark.parametrize('kw', [{}, dict(temperature=.5), dict(temperature=1.5, top_k=5), dict(top_p=.6), dict(min_p=.03)])
def test_frequencies_match_probabilities(kw):
    "The first word of 4,000 texts against the distribution, by chi-square; temperature and filters worked out here in plain NumPy"
    model,prompt = toy(),torch.tensor([3,7,11])
    with torch.no_grad():
        model.reset()
        logits = model(prompt[None])[0][0,-1].double().numpy()*8 # sharper than an untrained model is
    p0 = np.exp(logits-logits.max()); p0 /= p0.sum()
    keep = p0>=kw['min_p'] if 'min_p' in kw else np.ones(30, bool)
    p = (p0*keep)**(1/kw.get('temperature', 1)); p /= p.sum()
    order = np.argsort(-p)
    if 'top_k' in kw: p[order[kw['top_k']:]] = 0
    if 'top_p' in kw: p[order[np.searchsorted(np.cumsum(p[order]), kw['top_p'])+1:]] = 0
    p /= p.sum()
    drawn = torch.multinomial(next_probs(torch.tensor(logits)[None].expand(4000, -1), **kw), 1, generator=torch.Generator().manual_seed(0))[:,0]
    counts = np.bincount(drawn, minlength=30)
    assert not counts[p==0].any()
    big = p*4000>=5
    obs,exp = np.append(counts[big], counts[~big].sum()),np.append(p[big], p[~big].sum())*4000
    if exp[-1]<1e-9: obs,exp = obs[:-1],exp[:-1]
    assert chisquare(obs, exp*obs.sum()/exp.sum()).pvalue > 1e-4

def test_generate_ids_draws_from_the_model():
    model,prompt = toy(),torch.tensor([3,7,11])
    with torch.no_grad():
        model.reset()
        p = model(prompt[None])[0][0,-1].softmax(-1).numpy()
    first = [o[0] for o in generate_ids(model, [prompt]*4000, 1, generator=torch.Generator().manual_seed(1))]
    assert chisquare(np.bincount(first, minlength=30), p.astype(float)/p.astype(float).sum()*4000).pvalue > 1e-4

def test_state_is_carried_as_if_all_was_read_again():
    model = toy(200)
    for seed in range(20):
        prompt = torch.randint(0, 200, (seed%7+1,), generator=torch.Generator().manual_seed(seed))
        fast = generate_ids(model, [prompt], 200, generator=torch.Generator().manual_seed(seed))[0]
        g,ids = torch.Generator().manual_seed(seed),prompt.tolist()
        with torch.no_grad():
            for _ in range(200):
                model.reset()
                ids.append(int(torch.multinomial(model(torch.tensor([ids]))[0][0,-1:].softmax(-1), 1, generator=g)))
        assert fast==ids[len(prompt):]

def test_model_is_left_as_it_was():
    model = toy().train()
    generate_ids(model, [[1,2]], 3)
    assert model.training and all((h==0).all() for h,c in model[0].hidden)

@pytest.mark.parametrize('tok', [None, lambda: SubwordTokenizer(vocab_sz=300), lambda: CharTokenizer()], ids=['word','subword','char'])
@pytest.mark.parametrize('backwards', [False,True])
def test_no_token_that_is_no_text(tok, backwards):
    "An untrained model would write every token of the vocabulary sooner or later"
    learn = learner(data(tok and tok(), backwards=backwards))
    texts = learn.generate(['It was', 'The film', 'good']*10, 60, seed=0, temperature=2.)
    for t in texts:
        for o in (*text_spec_tok, 'xxfake', '▁'): assert o not in t
    for t,p in zip(texts, ['It was', 'The film', 'good']*10): assert t.lower().endswith(p.lower()) if backwards else t.startswith(p) # letters before the prompt may belong to its first word, and capitalize it

def test_unk_only_where_asked():
    learn = learner(data())
    assert any('xxunk' in o for o in learn.generate(['The']*50, 40, no_unk=False, seed=0)) # among about 1,000 words an untrained model finds it
    assert not any('xxunk' in o for o in learn.generate(['The']*50, 40, seed=0))

def test_more_prompts_than_one_and_lengths():
    model = toy()
    prompts = [torch.randint(0, 30, (n,)) for n in (5,1,9,9,2)]
    assert generate_ids(model, prompts, 15, top_k=1)==[generate_ids(model, [o], 15, top_k=1)[0] for o in prompts]

@pytest.mark.parametrize('bad', [0, -1])
def test_bad_temperature(bad):
    with pytest.raises(ValueError, match='above 0'): generate_ids(toy(), [[1]], 2, temperature=bad)

@pytest.mark.parametrize('kw', [dict(top_k=0), dict(top_k=-1), dict(top_p=0.), dict(top_p=2.), dict(min_p=-.1), dict(min_p=1.5)])
def test_bad_filters(kw):
    with pytest.raises(ValueError, match=next(iter(kw))): generate_ids(toy(), [[1]], 2, **kw)

def test_words_and_prompts_none():
    assert generate_ids(toy(), [], 3)==[] and generate_ids(toy(), [[1],[2]], 0)==[[],[]]
    with pytest.raises(ValueError, match='n_words is -1'): generate_ids(toy(), [[1]], -1)

def test_stop_cuts_where_the_token_would_have_come():
    model,ended = toy(),0
    for seed in range(30):
        free,cut = [generate_ids(model, [[3,4]], 40, generator=torch.Generator().manual_seed(seed), stop=s)[0] for s in (None,7)]
        assert cut==(free[:free.index(7)] if 7 in free else free)
        ended += 7 in free
    assert ended>5

def test_stop_of_a_learner():
    learn = learner(data())
    for o in learn.generate(['The']*50, 60, seed=0, stop=True, temperature=2.):
        assert o.startswith('The') and not any(t in o for t in (*text_spec_tok, 'xxfake'))

def test_backwards_prompt_follows_a_text_mark():
    "As in training: the model reads xxbos, then the prompt from its end"
    learn = learner(data(backwards=True))
    num,seen = learn.dls.train_ds.numericalize,[]
    handle = learn.model[0].encoder.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    text = learn.predict('was very good', 2, seed=0)
    handle.remove()
    assert [num.vocab[i] for i in seen[0][0]]==['xxbos','good','very','was'] and text.endswith('was very good')

@pytest.mark.parametrize('backwards', [False,True])
def test_marks_are_well_formed(backwards):
    "Forwards a mark leads a word; backwards it follows one, never at once, and the last word may still get it; the same after an early end"
    model,marks = toy(),torch.arange(30)<6
    for stop in (None,20):
        res = generate_ids(model, [[10]]*200, 8, marks=marks, backwards=backwards, stop=stop, generator=torch.Generator().manual_seed(1))
        for o in filter(None, res):
            is_mark,words = marks[o],int((~marks[o]).sum())
            assert words==8 if stop is None else words<=8
            assert not (is_mark[1:]&is_mark[:-1]).any() and not is_mark[0 if backwards else -1] and stop not in o
        if backwards: assert any(marks[o[-1]] for o in res if o)
        if stop: assert len({len(o) for o in res})>3
