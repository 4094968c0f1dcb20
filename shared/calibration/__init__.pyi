from .image_threshold import ImageCalibration as ImageCalibration
from .temperature import with_temperature as with_temperature
from .threshold import Calibration as Calibration, load_threshold as load_threshold
