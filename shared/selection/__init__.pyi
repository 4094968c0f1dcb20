from .alpha_beta import alpha_beta_labels as alpha_beta_labels, check_shares as check_shares, number_of as number_of
from .criteria import CRITERIA as CRITERIA, Criterion as Criterion, criterion as criterion, max_max as max_max, max_min as max_min
