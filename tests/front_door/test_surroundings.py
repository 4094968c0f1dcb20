import pytest

from shared.front_door.surroundings import wrong_processes

ONE = {"device": "cuda", "run_folder": {}}
SEVERAL = {"device": {"_target_": "shared.engines.initialize_distributed"}, "run_folder": {}}
TORCHRUN = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("config", "environment", "said"),
    [
        (ONE, {}, None),
        (ONE, TORCHRUN | {"WORLD_SIZE": "1"}, None),
        (SEVERAL, TORCHRUN, None),
        (SEVERAL, TORCHRUN | {"WORLD_SIZE": "1"}, None),
        (ONE, {"WORLD_SIZE": "2"}, "one of 2 processes"),
        (ONE, TORCHRUN, "Give multi_gpu_train.json after train.json"),
        ({"device": "cuda"}, TORCHRUN, "Start it without torchrun"),
        (SEVERAL, {}, "multi_gpu_train.json is for torchrun, which sets RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT"),
    ],
)
def test_processes_and_configuration_belong_together(config, environment, said):
    problems = wrong_processes(config, environment)
    assert problems == [] if said is None else said in problems[0]
