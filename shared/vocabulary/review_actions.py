"""The actions of readers in a review, and the states of a finding."""

from enum import StrEnum


class ReviewAction(StrEnum):
    """The action of a review event."""

    ACCEPT = "accept"  # the finding is right as it stands
    REJECT = "reject"  # there is no such finding
    CHANGE = "change"  # the finding is right with another box or class
    DRAW = "draw"  # here is a finding that the model has missed
    NO_FINDING = "no_finding"  # the image shows nothing: every finding is rejected, and the review is done
    COMPLETE = "complete"  # the review is done: every finding from a score on has been decided
    UNDO = "undo"  # an earlier event counts no more
    REDO = "redo"  # an earlier undo counts no more


class Verdict(StrEnum):
    """Where a finding stands."""

    UNDECIDED = "undecided"  # no reader has decided
    ACCEPTED = "accepted"  # it is there, as it was found or as a reader has changed or drawn it
    REJECTED = "rejected"  # it is not there
