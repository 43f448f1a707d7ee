"fastai's text namespace, with every name of ulmfit_nb in its place"
from fastai.text.all import *
from .texts import *
from .tokenization import *
from .numericalization import *
from .batching import *
from .losses import *
from .awd_lstm import *
from .language_model import *
from .pretraining import *
from .generation import *
from .classifier import *
from .ensemble import *
from .interpret import *
from .estimator import *
