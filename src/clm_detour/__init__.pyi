from clm_detour.config import load_config as load_config
from clm_detour.measure.text_model import TextModel as TextModel
from clm_detour.measure.text_model import open_model as open_model
from clm_detour.model import Documents as Documents
from clm_detour.model import ModernBertForPretraining as ModernBertForPretraining
from clm_detour.model import ModernBertForSequenceClassification as ModernBertForSequenceClassification
from clm_detour.model import ModernBertForTokenClassification as ModernBertForTokenClassification
from clm_detour.model import ModernBertModel as ModernBertModel
from clm_detour.model import PretrainingOutput as PretrainingOutput
from clm_detour.model import next_token_labels as next_token_labels
from clm_detour.recipe.recipe import Recipe as Recipe
from clm_detour.run.pipeline import prepare_data as prepare_data
from clm_detour.run.pipeline import run_recipe as run_recipe
from clm_detour.utils.errors import UserError as UserError

__version__: str
