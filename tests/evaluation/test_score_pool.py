import os

from shared.evaluation.score_pool import ScorePool


def square_where(home, value):
    """Ends every process but that of this number."""
    if os.getpid() != home:
        os._exit(1)
    return value * value


def test_where_the_others_end_this_process_scores_alone(caplog):
    arguments = [(os.getpid(), value) for value in range(5)]
    with ScorePool(2, patience_s=0) as pool:
        for _ in range(2):
            assert pool.map(square_where, arguments) == [0, 1, 4, 9, 16]
    assert [record.message for record in caplog.records] == [
        "the other scoring processes ended: this process does the rest of the scoring alone"
    ]
