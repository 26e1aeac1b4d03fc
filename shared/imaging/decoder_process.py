"""The child side of `shared.imaging.isolation`: renders images one by one until its input ends.

It first writes `READY`, then one byte for each protection: 1 if it is active. A request is `REQUEST` followed by the
file's bytes. `shared.imaging.decoder_answer` defines the answer.
"""

import ctypes
import os
import resource
import signal
import struct
import sys

from shared.errors import DecoderProcessLost, PermanentError

REQUEST = struct.Struct(">IQQ")  # rendition_px, max_image_pixels, bytes of the file
READY = b"R"

_PR_SET_PDEATHSIG = 1
#: Threads that libraries start, in addition to the threads that decode an image.
_MORE_THREADS = 16
#: imagecodecs imports a decoder at its first use, when this process can no longer open files.
_DECODERS = ("jpeg", "jpeg8", "jpegls", "jpeg2k", "htj2k", "jpegxl", "png", "dicomrle", "packbits")


def main(parent_pid: int, memory_bytes: int, threads: int, classifier_folder: str) -> None:
    """Serve requests from standard input; answers go to the original standard output."""
    _die_with(parent_pid)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # output of native libraries must not mix with the answers

    import cv2
    import imagecodecs
    import numpy.ma  # noqa: F401 - numpy imports it at its first use

    cv2.setNumThreads(1)
    for name in _DECODERS:
        getattr(imagecodecs, f"{name}_decode")
    from shared.imaging import decode, suitability  # noqa: F401 - `make_rendition` imports them when it is called
    from shared.imaging.chest_classifier.classifier import load_classifier
    from shared.imaging.decoder_answer import pack_error, pack_rendition
    from shared.imaging.rendition import make_rendition
    from shared.imaging.sandbox import PROTECTIONS, enter_sandbox

    classifier = load_classifier(classifier_folder)
    active = enter_sandbox(threads + _MORE_THREADS)
    answers.write(READY + bytes(name in active for name in PROTECTIONS))
    answers.flush()
    while head := requests.read(REQUEST.size):
        rendition_px, max_image_pixels, size = REQUEST.unpack(head)
        data = requests.read(size)
        try:
            rendition = make_rendition(
                data,
                rendition_px=rendition_px,
                max_image_pixels=max_image_pixels,
                classifier=classifier,
                threads=threads,
            )
        except PermanentError as exc:
            answer = pack_error(exc.code, exc.detail)
        except Exception as exc:  # noqa: BLE001 - the worker's loop; the message may contain patient data
            answer = pack_error(DecoderProcessLost.code, f"Decoding failed with {type(exc).__name__}.")
        else:
            answer = pack_rendition(rendition)
        answers.write(answer)
        answers.flush()


def _die_with(parent_pid: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:  # the parent died before the signal was requested
            sys.exit()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and closes the pool


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
