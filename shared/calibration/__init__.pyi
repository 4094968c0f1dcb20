from .temperature import with_temperature as with_temperature
from .threshold import Calibration as Calibration, load_threshold as load_threshold
