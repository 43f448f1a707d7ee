"""The chapter's steps, one after the other, on a folder of reviews. Run by test_chapter.py: `chapter.py FOLDER
[--without-fastai-text]`"""
import sys

if '--without-fastai-text' in sys.argv: # what is ours must not lean on what it replaces
    import fastai.text.core, fastai.text.data, fastai.text.models.awdlstm, fastai.text.models.core
    def _boom(name):
        def __init__(self, *args, **kwargs): raise AssertionError(f"fastai's {name} was used")
        return __init__
    for mod,name in ((fastai.text.data,'LMDataLoader'), (fastai.text.models.awdlstm,'AWD_LSTM'),
        (fastai.text.core,'TokenizeWithRules'),
                     (fastai.text.data,'Numericalize'), (fastai.text.models.core,'SentenceEncoder'),
                     (fastai.text.data,'SortedDL')):
        getattr(mod, name).__init__ = _boom(name)

from ulmfit_nb.all import *
import ulmfit_nb.awd_lstm

set_seed(42)
path = Path(sys.argv[1])
for cfg in (ulmfit_nb.awd_lstm.awd_lstm_lm_config, ulmfit_nb.awd_lstm.awd_lstm_clas_config):
    cfg.update(emb_sz=48, n_hid=96) # the calls stay the chapter's; only the default size is small

# Every name that the design lists is ours
for o in (WordTokenizer, SubwordTokenizer, CharTokenizer, Tokenizer, Numericalize, make_vocab, Corpus, LMDataLoader,
    TextBlock, TextDataLoaders, AWD_LSTM, language_model_learner, LMLearner,
          LMLearner.predict, TextLearner, TextLearner.save_encoder, TextLearner.load_encoder, text_classifier_learner,
          read_texts, imdb, sentences, load_learner):
    assert o.__module__.startswith('ulmfit_nb.'), (o, o.__module__)

# 3 files
files = get_text_files(path, folders=['train','test','unsup'])
txt = files[0].open(encoding='utf8').read()
assert len(files)>=250 and len(txt[:75])==75

# 4 word tokens
spacy = WordTokenizer()
toks = first(spacy([txt]))
assert coll_repr(toks, 30).startswith(f'(#{len(toks)}) [')
assert list(first(spacy(['The U.S. dollar $1 is $1.00.']))) == ['The','U.S.','dollar','$','1','is','$','1.00','.']

# 5 rules
tkn = Tokenizer(spacy)
assert tkn(txt)[0]==BOS=='xxbos'
assert [f.__name__ for f in defaults.text_proc_rules] == [f.__name__ for f in text_proc_rules]
assert list(tkn('&copy;   Fast.ai www.fast.ai/INDEX')) == ['xxbos','©','xxmaj','fast.ai','xxrep','3','w','.fast.ai','/',
    'xxup','index']

# 6 subwords
txts = L(o.open(encoding='utf8').read() for o in files[:2000])
def subword(sz):
    sp = SubwordTokenizer(vocab_sz=sz)
    sp.setup(txts)
    return first(sp([txt]))
n200,n1000 = len(subword(200)),len(subword(1000))
assert n200>n1000>len(txt.split())

# 7 characters: the exercise
assert list(Tokenizer(CharTokenizer())('Hi'))[0]==BOS

# 8 numericalize
toks200 = txts[:200].map(tkn)
num = Numericalize()
num.setup(toks200)
assert num.vocab[:9]==[UNK,PAD,BOS,EOS,FLD,TK_REP,TK_WREP,TK_UP,TK_MAJ] and num.min_freq==3 and num.max_vocab==60000
nums = num(tkn(txt))[:20]
back = ' '.join(num.vocab[o] for o in nums)
assert back.startswith('xxbos') and len(back.split())==20

# 9 batches
nums200 = toks200.map(num)
dl = LMDataLoader(nums200)
x,y = first(dl)
assert x.shape==y.shape==(64,72) and (x[:,1:]==y[:,:-1]).all()

# 10 data block
get_reviews = partial(get_text_files, folders=['train','test','unsup'])
block = DataBlock(blocks=TextBlock.from_folder(path, is_lm=True), get_items=get_reviews, splitter=RandomSplitter(0.1))
dls_lm = block.dataloaders(path, path=path, bs=64, seq_len=60)
dls_lm.show_batch(max_n=2)
block.summary(path, bs=2)

# 11 language model
learn = language_model_learner(dls_lm, AWD_LSTM, drop_mult=0.3, metrics=[accuracy, Perplexity()]).to_fp16()

# 12 train
learn.fit_one_cycle(1, 2e-2)
first_loss = learn.recorder.values[-1][1]
learn.save('1epoch')
learn = learn.load('1epoch')
learn.unfreeze()
learn.fit_one_cycle(10, 2e-3)
assert learn.recorder.values[-1][1] < first_loss
learn.save_encoder('finetuned')

# 13 generate
TEXT,N_WORDS,N_SENTENCES = "I liked this movie because",40,2
preds = [learn.predict(TEXT, N_WORDS, temperature=0.75) for _ in range(N_SENTENCES)]
assert preds[0]!=preds[1] and all(o.lower().startswith('i liked this') for o in preds) and not any('xx' in o
    for o in preds), preds

# 14 classifier data
dls_clas = DataBlock(blocks=(TextBlock.from_folder(path, vocab=dls_lm.vocab), CategoryBlock), get_y=parent_label,
                     get_items=partial(get_text_files, folders=['train','test']),
                     splitter=GrandparentSplitter(valid_name='test')
                    ).dataloaders(path, path=path, bs=64, seq_len=72)
dls_clas.show_batch(max_n=3)

# 15 padding
assert len(set(toks200[:10].map(num).map(len)))>1
x,y = dls_clas.one_batch()
assert (x[:,0]==dls_clas.vocab[0].index(BOS)).all() and (x==dls_clas.vocab[0].index(PAD)).any()

# 16 classifier
learn = text_classifier_learner(dls_clas, AWD_LSTM, drop_mult=0.5, metrics=accuracy).to_fp16()
learn = learn.load_encoder('finetuned')

# 17 gradual unfreezing
learn.fit_one_cycle(1, 2e-2)
learn.freeze_to(-2)
learn.fit_one_cycle(1, slice(1e-2/(2.6**4), 1e-2))
learn.freeze_to(-3)
learn.fit_one_cycle(1, slice(5e-3/(2.6**4), 5e-3))
learn.unfreeze()
learn.fit_one_cycle(2, slice(1e-3/(2.6**4), 1e-3))
probs_fwd,targs = learn.get_preds()
assert probs_fwd.shape==(len(dls_clas.valid_ds), 2)
label,_,p = learn.predict(txt)
assert label in ('negative','positive') and abs(float(p.sum())-1)<1e-5
learn.show_results(max_n=2)
learn.validate()

# 18 both directions: the same calls on texts read backwards, probabilities averaged
dls_lm = DataBlock(blocks=TextBlock.from_folder(path, is_lm=True, backwards=True), get_items=get_reviews,
    splitter=RandomSplitter(0.1)).dataloaders(path, path=path, bs=64, seq_len=60)
bwd = language_model_learner(dls_lm, AWD_LSTM, drop_mult=0.3, backwards=True)
bwd.fit_one_cycle(1, 2e-2)
bwd.save_encoder('finetuned_bwd')
dls_clas = DataBlock(blocks=(TextBlock.from_folder(path, vocab=dls_lm.vocab, backwards=True), CategoryBlock),
    get_y=parent_label,
                     get_items=partial(get_text_files, folders=['train','test']),
                     splitter=GrandparentSplitter(valid_name='test')
                    ).dataloaders(path, path=path, bs=64, seq_len=72)
bwd = text_classifier_learner(dls_clas, AWD_LSTM, drop_mult=0.5, metrics=accuracy,
    backwards=True).load_encoder('finetuned_bwd')
bwd.fit_one_cycle(1, 2e-2)
probs_bwd,targs_bwd = bwd.get_preds()
assert (targs==targs_bwd).all() # the same documents in the same order
both = (probs_fwd+probs_bwd)/2
assert both.shape==probs_fwd.shape and not torch.equal(both, probs_fwd)
print('chapter: done')
