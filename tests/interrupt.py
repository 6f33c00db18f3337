#!/usr/bin/python3
"""Sends a message and interrupts it.

interrupt.py NAME SIGNAL SECONDS MESSAGE

Sends MESSAGE to the mapped device NAME, gets SIGNAL after SECONDS, and prints the errno that
the message ended with.  Fails when the message takes more than 3 s from then on.
"""

import errno
import os
import signal
import sys
import time

import dm

PATIENCE = 3


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    name, number, seconds, message = sys.argv[1:]
    number = signal.Signals[number]
    # Python sees the signal only after the message has ended, so the sender notes the time.
    reader, writer = os.pipe()
    signal.signal(number, lambda *_: None)
    sender = os.fork()
    if sender == 0:
        time.sleep(float(seconds))
        os.write(writer, str(time.monotonic()).encode())
        os.kill(os.getppid(), number)
        os._exit(0)
    result = 'success'
    try:
        dm.Mapped(name).message(message)
    except OSError as error:
        result = errno.errorcode[error.errno]
    ended = time.monotonic()
    os.waitpid(sender, 0)
    took = ended - float(os.read(reader, 100))
    print(result)
    if took > PATIENCE:
        sys.exit(f'the message ended {took:.1f} s after the signal')


if __name__ == '__main__':
    main()
