"What is drawn is what the model says; nothing that is no text is ever written"
import copy, re, numpy as np, pytest, torch
from pathlib import Path
from fastai.basics import ColReader, DataBlock, RandomSplitter, set_seed
from scipy.stats import chisquare
from ulmfit_nb.awd_lstm import AWD_LSTM, get_language_model
from ulmfit_nb.inference import PrepackedLSTM, prepacked_encoder
from ulmfit_nb.batching import TextBlock
from ulmfit_nb.generation import TokenRules, beam_search, generate_ids, next_probs, score_ids, stream_ids
from ulmfit_nb.language_model import language_model_learner
from ulmfit_nb.texts import sentences
from ulmfit_nb.tokenization import CharTokenizer, SubwordTokenizer, text_spec_tok

def toy(vocab_sz=30, seed=0):
    set_seed(seed)
    return get_language_model(AWD_LSTM, vocab_sz, config=dict(emb_sz=8, n_hid=12)).eval()

def data(tok=None, **kw):
    return DataBlock(TextBlock.from_df('text', tok=tok, is_lm=True, min_freq=1, **kw), get_x=ColReader('text'),
        splitter=RandomSplitter(0.1, seed=1)).dataloaders(sentences()[:200], bs=8, seq_len=20)

def learner(dls): return language_model_learner(dls, AWD_LSTM, config=dict(emb_sz=8, n_hid=12), pretrained=False)

@pytest.mark.parametrize('kw', [{}, dict(temperature=.5), dict(temperature=1.5, top_k=5), dict(top_p=.6),
    dict(min_p=.03)])
def test_frequencies_match_probabilities(kw):
    """The first word of 4,000 texts against the distribution, by chi-square; temperature and filters worked out here in
    plain NumPy"""
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
    drawn = torch.multinomial(next_probs(torch.tensor(logits)[None].expand(4000, -1), **kw), 1,
        generator=torch.Generator().manual_seed(0))[:,0]
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
    model[0](torch.tensor([[1,2,3]]))
    before = [h.clone() for layer in model[0].hidden for h in layer]
    generate_ids(model, [[1,2]], 3)
    beam_search(model, [[1,2]], 3)
    score_ids(model, [torch.tensor([1,2,3])])
    assert model.training and model[0].training and all(torch.equal(a, b) for a,
        b in zip(before, [h for layer in model[0].hidden for h in layer]))

def test_weights_that_change_are_seen():
    "Generation keeps arranged weights; an optimizer's step makes new ones"
    model,prompt = toy(),[3,7,11]
    before = beam_search(model, [prompt], 5, beams=1)[0][0][1]
    for p in model[0].rnns.parameters(): p.data.mul_(3)
    ids,after = beam_search(model, [prompt], 5, beams=1)[0][0]
    assert after!=before and abs(after-float(log_probs(model, prompt, ids).sum()))<1e-4

@pytest.mark.parametrize('how', ['another type','another PyTorch'])
def test_without_arranged_weights(how, monkeypatch):
    "Where weights can't be arranged, the layers read as they are, and say the same"
    model,doc = toy(),torch.arange(20)
    other = copy.deepcopy(model)
    if how=='another type': other = other.double()
    else: monkeypatch.setattr(torch.backends.mkldnn, 'is_available', lambda: False)
    assert not any(isinstance(o, PrepackedLSTM) for o in prepacked_encoder(other[0]).rnns)
    monkeypatch.undo()
    if how=='another type': assert isinstance(prepacked_encoder(model[0]).rnns[0], PrepackedLSTM)
    assert generate_ids(other, [[3,4],[5]], 20, top_k=1)==generate_ids(model, [[3,4],[5]], 20, top_k=1)
    for (a,s),(b,t) in zip(beam_search(other, [[3,4]], 8)[0], beam_search(model, [[3,4]], 8)[0]):
        assert a==b and abs(s-t)<1e-4
    assert torch.allclose(score_ids(other, [doc])[0], score_ids(model, [doc])[0], atol=1e-5)

@torch.no_grad()
def log_probs(model, prompt, ids):
    "The model's own log-probability of each of `ids` after `prompt`, read in one go"
    x = torch.tensor([*prompt,*ids])
    model.reset()
    return model(x[None,:-1])[0][0].log_softmax(-1).gather(1, x[1:,None])[len(prompt)-1:,0]

@pytest.mark.parametrize('tok', [None, lambda: SubwordTokenizer(vocab_sz=300), lambda: CharTokenizer()],
    ids=['word','subword','char'])
@pytest.mark.parametrize('backwards', [False,True])
def test_no_token_that_is_no_text(tok, backwards):
    "An untrained model would write every token of the vocabulary sooner or later"
    learn = learner(data(tok and tok(), backwards=backwards))
    texts = learn.generate(['It was', 'The film', 'good']*10, 60, seed=0, temperature=2.)
    for t in texts:
        for o in (*text_spec_tok, 'xxfake', '▁'): assert o not in t
    for t,p in zip(texts, ['It was', 'The film', 'good']*10):
        # letters before the prompt may belong to its first word, and capitalize it
        assert t.lower().endswith(p.lower()) if backwards else t.startswith(p)

def test_unk_only_where_asked():
    learn = learner(data())
    # among about 1,000 words an untrained model finds it
    assert any('xxunk' in o for o in learn.generate(['The']*50, 40, no_unk=False, seed=0))
    assert not any('xxunk' in o for o in learn.generate(['The']*50, 40, seed=0))

def test_more_prompts_than_one_and_lengths():
    model = toy()
    prompts = [torch.randint(0, 30, (n,)) for n in (5,1,9,9,2)]
    assert generate_ids(model, prompts, 15, top_k=1)==[generate_ids(model, [o], 15, top_k=1)[0] for o in prompts]

@pytest.mark.parametrize('bad', [0, -1])
def test_bad_temperature(bad):
    with pytest.raises(ValueError, match='above 0'): generate_ids(toy(), [[1]], 2, temperature=bad)

@pytest.mark.parametrize('kw', [dict(top_k=0), dict(top_k=-1), dict(top_p=0.), dict(top_p=2.), dict(min_p=-.1),
    dict(min_p=1.5)])
def test_bad_filters(kw):
    with pytest.raises(ValueError, match=next(iter(kw))): generate_ids(toy(), [[1]], 2, **kw)

def test_words_and_prompts_none():
    assert generate_ids(toy(), [], 3)==[] and generate_ids(toy(), [[1],[2]], 0)==[[],[]]
    with pytest.raises(ValueError, match='n_words is -1'): generate_ids(toy(), [[1]], -1)

@pytest.mark.parametrize('bad', [None, 5, float('nan'), Path('a.txt')])
def test_prompts_that_are_no_texts(bad):
    learn = learner(data())
    with pytest.raises(ValueError, match='prompt 1 is .*not a text'): learn.generate(iter(['The', bad]), 2)
    with pytest.raises(ValueError, match='prompt 0 is .*not a text'): learn.predict(bad)

def test_no_beams():
    with pytest.raises(ValueError, match='beams is 0, but must be 1 or more'):
        learner(data()).generate(['The'], 2, beams=0)

def test_stop_cuts_where_the_token_would_have_come():
    model,ended = toy(),0
    for seed in range(30):
        free,cut = [generate_ids(model, [[3,4]], 40, generator=torch.Generator().manual_seed(seed), stop=s)[0]
            for s in (None,7)]
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

def test_stop_of_backwards_keeps_the_last_word():
    rules = TokenRules([*text_spec_tok, *[f'w{i}' for i in range(21)]], backwards=True)
    for seed in range(20):
        free,cut = [generate_ids(toy(), [[10]], 30, rules, stop=s, generator=torch.Generator().manual_seed(seed))[0]
            for s in (None,2)]
        assert cut==free[:len(cut)] and 2 not in cut

# What may come next

words_vocab = [*text_spec_tok, 'xxfake', 'film', 'Ω'.lower(), '5', '3', '12', '100', '!', '...', 'a', '▁', '\n\n',
    '2nd', 'xxl', '99', '1']
char_vocab = [*text_spec_tok, 'xxfake', '▁', *'abc0123459!.ü가']
piece_vocab = [*['▁'+o for o in text_spec_tok], *text_spec_tok, '▁', '▁film', 'ilm', '▁a', 'b', '▁1', '1', '▁3', '5',
    '▁12', '!', '▁!', '▁...', '▁2nd']

def toy_learner(vocab, kind, backwards=False, seed=0):
    "Rules and a model of a vocabulary, sharper than an untrained one"
    rules = TokenRules(vocab, pieces=kind!='word', backwards=backwards)
    model = toy(len(vocab), seed)
    model[1].decoder.bias.data.normal_(0, 1.5)
    return rules,model

@pytest.mark.parametrize('backwards', [False,True])
@pytest.mark.parametrize('kind', ['word','char','subword'])
def test_ten_thousand_words_are_well_formed(kind, backwards):
    "Every mark has what it needs, and undoing the rules leaves no trace of any xx token"
    vocab = dict(word=words_vocab, char=char_vocab, subword=piece_vocab)[kind]
    n = 0
    for seed in range(4):
        rules,model = toy_learner(vocab, kind, backwards, seed)
        out = generate_ids(model, [[vocab.index('▁a' if kind=='subword' else 'a')]]*25, 100, rules,
            generator=torch.Generator().manual_seed(seed), temperature=2.)
        for ids in out:
            toks = [vocab[i] for i in (ids[::-1] if backwards else ids)]
            bare = [o.removeprefix('▁') if kind=='subword' and o!='▁' else o for o in toks]
            assert not {'xxpad','xxbos','xxeos','xxfld','xxunk','xxwrep','xxfake'} & set(bare)
            text = (' ' if kind=='word' else '').join(f' {b} ' if b in text_spec_tok else t.replace('▁',' ') for t,
                b in zip(toks, bare))
            text = ' '.join(text.split())
            left = re.sub(r'(?:xxmaj|xxup) (?=[^\W\d_])|xxrep (?:[3-9]|[1-9][0-9]) \S(?= |$)', '',
                text) if not backwards else re.sub(r'(?:xxmaj|xxup) (?=[^\W\d_])', '', text)
            assert not re.search(r'\bxx(?!l)', left), text
            assert kind!='word' or not any(o.isspace() or o=='▁' for o in toks)
            n += 100
    assert n==10_000

@pytest.mark.parametrize('tok', [None, lambda: SubwordTokenizer(vocab_sz=300), lambda: CharTokenizer()],
    ids=['word','subword','char'])
def test_ten_thousand_words_of_learners(tok):
    learn = learner(data(tok and tok()))
    texts = learn.generate(['It was']*50, 200, seed=0, temperature=2.)
    for t in texts:
        for o in (*text_spec_tok, 'xxfake', '▁'): assert o not in t
    if tok is None: assert all(len(t.split())==202 for t in texts)

def test_repetitions_are_written_and_undone():
    rules,model = toy_learner(words_vocab, 'word')
    model[1].decoder.bias.data[words_vocab.index('xxrep')] = 6
    from ulmfit_nb.tokenization import decode_spec_tokens
    ids = generate_ids(model, [[10]], 50, rules, generator=torch.Generator().manual_seed(0))[0]
    text = decode_spec_tokens([words_vocab[i] for i in ids])
    assert len(text)==50 and sum(bool(re.fullmatch(r'(\S)\1{2,}', o)) for o in text)>20

def test_rules_without_text():
    with pytest.raises(ValueError, match='is text'): TokenRules(['xxunk','xxpad'])

def test_a_prompt_may_end_within_a_mark():
    rules,model = toy_learner(words_vocab, 'word')
    i = words_vocab.index
    assert {o[0] for o in generate_ids(model, [[i('xxmaj')]]*200, 1, rules)} <= {i('film'),i('ω'),i('a'),i('xxl')}
    assert {o[0] for o in generate_ids(model, [[i('a'),i('xxrep')]]*50, 1, rules)} <= {i('5'),i('3'),i('12'),i('99')}

@pytest.mark.parametrize('tok', [None, lambda: SubwordTokenizer(vocab_sz=300),
    lambda: SubwordTokenizer(vocab_sz=400, byte_fallback=True), lambda: CharTokenizer()],
    ids=['word','subword','bytes','char'])
def test_stream_is_predict(tok):
    learn = learner(data(tok and tok()))
    for prompt in ('The film', '', 'Sooooo'):
        for stop in (False,True):
            pieces = list(learn.stream(prompt, 120, seed=5, stop=stop, temperature=1.5))
            whole = learn.predict(prompt, 120, seed=5, stop=stop, temperature=1.5)
            assert ''.join(pieces).rstrip('\ufffd')==whole.rstrip('\ufffd') and (stop or len(pieces)>50)

def test_stream_comes_word_by_word():
    "The first piece is there before the last word is drawn"
    learn,seen = learner(data()),[]
    handle = learn.model[0].encoder.register_forward_hook(lambda *a: seen.append(1))
    it = learn.stream('The film', 100, seed=0)
    next(it), next(it)
    handle.remove()
    assert 1<=len(seen)<=6

# Beam search

@pytest.mark.parametrize('stop', [None,7])
def test_one_beam_is_greedy(stop):
    rules,model = toy_learner(words_vocab, 'word')
    prompts = [[12],[10,12],[12,12,10]]
    for r in (None,rules):
        greedy = generate_ids(model, prompts, 20, r, stop=stop, top_k=1)
        assert [o[0][0] for o in beam_search(model, prompts, 20, 1, r, stop=stop)]==greedy

@pytest.mark.parametrize('beams', [1,3,8])
def test_scores_are_log_likelihoods(beams):
    model = toy()
    prompts = [[3,4],[9],[8,7,6,5]]
    for stop in (None,7):
        for p,found in zip(prompts, beam_search(model, prompts, 12, beams, stop=stop)):
            assert 1<=len(found)<=beams and [s for _,s in found]==sorted((s for _,s in found), reverse=True)
            for ids,s in found:
                full = ids if len(ids)==12 else [*ids,stop]
                assert abs(s-float(log_probs(model, p, full).sum()))<1e-4

def test_more_beams_find_likelier_texts():
    model = toy()
    model[0].encoder.weight.data *= 20
    model[1].decoder.weight.data *= 3
    prompts = [[i,i+3] for i in range(10)]
    best = [[o[0][1] for o in beam_search(model, prompts, 6, b)] for b in (1,30)]
    assert sum(a<=b+1e-5 for a,b in zip(*best))>=9 and sum(best[1])>sum(best[0])
    # alone as among others
    assert beam_search(model, prompts, 6, 5)[3][0][0]==beam_search(model, prompts[3:4], 6, 5)[0][0][0]

# Scores

def test_score_against_plain_loop_in_any_batch():
    model = toy(200)
    model[0].encoder.weight.data *= 10
    docs = [torch.randint(0, 200, (n,), generator=torch.Generator().manual_seed(n))
        for n in (300,1,2,73,72,71,145,40,5,0)]
    ref = [log_probs(model, o[:1].tolist(), o[1:].tolist()) if len(o)>1 else torch.zeros(0) for o in docs]
    for bs,seq_len in ((1,72),(3,10),(64,72),(64,1000)):
        got = score_ids(model, docs, bs, seq_len)
        for a,b in zip(got, ref): assert a.shape==b.shape and torch.allclose(a, b, atol=1e-4)

@pytest.mark.parametrize('backwards', [False,True])
def test_score_of_texts(backwards):
    learn = learner(data(backwards=backwards))
    df = learn.score(['The film was good.', '', 'Bad!'])
    assert df.n_tokens.tolist()==[6,0,3] and np.isnan(df.perplexity[1]) and df.tokens[2]==['xxmaj','bad','!']
    num,turn = learn.dls.train_ds.numericalize,slice(None,None,-1 if backwards else 1)
    ids = num(['xxbos',*df.tokens[0][turn]]).tolist()
    lp = log_probs(learn.model.eval(), ids[:1], ids[1:])
    assert np.allclose(df.log_probs[0][turn], lp, atol=1e-4) and abs(df.perplexity[0]-float((-lp.mean()).exp()))<.01

# fastai's tools

def test_fastai_tools_on_a_language_model(capsys):
    from fastai.interpret import Interpretation
    learn = learner(data())
    with learn.no_bar():
        learn.show_results(max_n=2)
        p,y = learn.get_preds()
        dl = learn.dls.test_dl(['The film was good.', 'Bad!'])
        t = learn.get_preds(dl=dl)[0]
        interp = Interpretation.from_learner(learn)
    lp = learn.loss_func(p, y) # of all tokens
    rows = [len(x) for x,_ in learn.dls.valid]
    assert len(interp.losses)==sum(rows)!=len(learn.dls.valid_ds) # a loss per row of the stream, which is no text
    top,at = interp.top_losses(3)
    assert top.tolist()==sorted(interp.losses.tolist(), reverse=True)[:3] and torch.equal(interp.losses[at], top)
    assert float(interp.losses.min())<=float(lp)<=float(interp.losses.max())
    assert p.shape[:2]==y.shape and p.shape[2]==t.shape[2]==len(learn.vocab)

