#!/usr/bin/python3
"""Sends a message and interrupts it.

interrupt.py NAME SIGNAL MESSAGE

Sends MESSAGE, which relocates blocks or brings them back, to the mapped device NAME, gets SIGNAL
when the first of them are done, and prints the errno that the message ended with.
"""

import errno
import os
import signal
import sys
import time

import dm


def moved(mapped):
    """How many blocks were relocated or brought back, durably; used counts those on their way, too."""
    return int(mapped.value('relocated')) + int(mapped.value('removed'))


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    name, number, message = sys.argv[1:]
    number = signal.Signals[number]
    signal.signal(number, lambda *_: None)
    mapped = dm.Mapped(name)
    before = moved(mapped)
    sender = os.fork()
    if sender == 0:
        while moved(mapped) == before:
            time.sleep(0.01)
        os.kill(os.getppid(), number)
        os._exit(0)
    result = 'success'
    try:
        mapped.message(message)
    except OSError as error:
        result = errno.errorcode[error.errno]
    print(result)
    os.kill(sender, signal.SIGKILL)
    os.waitpid(sender, 0)


if __name__ == '__main__':
    main()
