"""The child side of `shared.imaging.isolation`: renders one image after another until its input ends.

First it says `READY` and which of its protections hold, one byte each. A request is `REQUEST` and the file's bytes; the
answer is that of `shared.imaging.decoder_answer`.
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
#: Threads beside those that share an image: libraries that start some of their own.
_MORE_THREADS = 16
#: imagecodecs imports a decoder when it is first asked for, which is too late here.
_DECODERS = ("jpeg", "jpeg8", "jpegls", "jpeg2k", "htj2k", "jpegxl", "png", "dicomrle", "packbits")


def main(parent_pid: int, memory_bytes: int, threads: int, classifier_folder: str) -> None:
    """Serve requests from standard input; the answers go to what was standard output at the start."""
    _die_with(parent_pid)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a native library prints must not mix with the answers

    import cv2
    import imagecodecs
    import numpy.ma  # noqa: F401 - numpy imports it when it is first asked for

    cv2.setNumThreads(1)
    for name in _DECODERS:
        getattr(imagecodecs, f"{name}_decode")
    from shared.imaging import decode, suitability  # noqa: F401 - which a rendition imports only when it is made
    from shared.imaging.chest_classifier.classifier import load_classifier
    from shared.imaging.confinement import PROTECTIONS, confine
    from shared.imaging.decoder_answer import pack_error, pack_rendition
    from shared.imaging.rendition import make_rendition

    classifier = load_classifier(classifier_folder)
    active = confine(threads + _MORE_THREADS)
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
        except Exception as exc:  # noqa: BLE001 - this is the worker's loop; the message may quote a patient's data
            answer = pack_error(DecoderProcessLost.code, f"Decoding failed with {type(exc).__name__}.")
        else:
            answer = pack_rendition(rendition)
        answers.write(answer)
        answers.flush()


def _die_with(parent_pid: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:  # it died before the signal was asked for
            sys.exit()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes the pool


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
