"""What tests let fresh processes do."""

import os
import signal
import time


def tell(word, line):
    line.announce(word)
    return {"pid": os.getpid(), "folder": os.getcwd()}


def fail(message, line):
    raise ValueError(message)


def give_a_function(line):
    return lambda: None


def die(how, line):
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), signal.SIGKILL)


def count(name, most, line):
    for number in range(1, most + 1):
        line.announce(f"{name}{number}")
        if number < most:
            line.turn()
    return most


def wait_then_sleep(deaf, line):
    """`deaf` to an interruption; the first to come waits for its next turn, and the second sleeps."""
    if deaf:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    line.announce(os.getpid())
    line.turn()
    time.sleep(60)


def fail_in_the_second(how):
    from torch import distributed

    if distributed.get_rank() == 1:
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError("no space: left")
    distributed.barrier()  # where the other is missed
