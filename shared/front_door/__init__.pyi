from .check import check_configuration as check_configuration, check_given as check_given
from .cores import available_cores as available_cores, reading_processes as reading_processes
from .explained import begin_script as begin_script, explanation as explanation
from .given import Given as Given
