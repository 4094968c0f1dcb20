"""Small networks run several times as fast on one thread, above all where other processes share the cores."""

import pytest
import torch


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)
