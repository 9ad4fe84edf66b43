"""How a training is described: dataclasses, YAML, flags. No torch in here, so that errors come at once."""

from torchfpn.config.read import Request as Request
from torchfpn.config.read import changed_settings as changed_settings
from torchfpn.config.read import load_config as load_config
from torchfpn.config.read import read_config as read_config
from torchfpn.config.read import to_yaml as to_yaml
from torchfpn.config.settings import DataConfig as DataConfig
from torchfpn.config.settings import LossConfig as LossConfig
from torchfpn.config.settings import ModelConfig as ModelConfig
from torchfpn.config.settings import OptimizerConfig as OptimizerConfig
from torchfpn.config.settings import ScheduleConfig as ScheduleConfig
from torchfpn.config.settings import TrainConfig as TrainConfig
