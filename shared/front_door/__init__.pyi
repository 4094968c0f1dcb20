from .check import check_configuration as check_configuration, check_given as check_given
from .explained import begin_script as begin_script, explanation as explanation
from .given import Given as Given
