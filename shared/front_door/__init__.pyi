from .check import check_configuration as check_configuration, check_given as check_given
from .explained import begin_script as begin_script, explain_errors as explain_errors, explanation as explanation
from .given import Given as Given, executing_parser as executing_parser
from .names import nearest as nearest
from .surroundings import device_problems as device_problems
