from __future__ import annotations

import threading
import time

import pytest
import torch

from simtrain.metrics.threads import in_threads


@pytest.fixture(params=[1, 2, 3])
def torch_threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_every_input_is_worked_on_once_and_threads_are_shared_out(torch_threads):
    seen, done = [], []
    in_threads(lambda one: seen.append((one, torch.get_num_threads())), range(20), lambda: done.append(1))
    assert sorted(one for one, _ in seen) == list(range(20))
    assert {threads for _, threads in seen} == {1}
    assert len(done) == 20


def test_the_number_of_threads_is_as_before(torch_threads):
    in_threads(lambda one: None, range(4))
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert (torch.get_num_threads(), later) == (torch_threads, [torch_threads])


def test_an_error_comes_through_and_ends_the_work(torch_threads):
    seen, broken = [], threading.Event()

    def work(one):
        seen.append(one)
        if one == 1:
            broken.set()
            raise ValueError("broken")
        if one > 1:  # else the others may be through with all before one gets to break
            broken.wait()
            time.sleep(0.001)

    with pytest.raises(ValueError, match="broken"):
        in_threads(work, range(1000))
    assert len(seen) < 1000
    assert torch.get_num_threads() == torch_threads
