from .temperature import with_temperature as with_temperature
from .threshold import Calibration as Calibration, find_checkpoints as find_checkpoints, load_threshold as load_threshold
