"""Builds a data set of only the kept elements: each is read, checked against its rule, and rewritten."""

import math
import re
from itertools import takewhile
from typing import Any, assert_never

import numpy as np
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.valuerep import format_number_as_ds

from shared.deidentification.pseudonyms import Pseudonyms
from shared.deidentification.rules import MEANINGS, RULES, Codes, Items, Number, Plain, Rule, Rules, Table, Terms
from shared.errors import MalformedDicom
from shared.imaging.element_values import numbers_of, values_of
from shared.imaging.lookup_tables import read_entries

_SRT = re.compile(r"[A-Z]-")
#: The maximum length of a decimal string (PS3.5 table 6.2-1).
_DS_CHARACTERS = 16
_LEADING_ZERO = re.compile(r"^(-?)0\.")
_WORD = 0xFFFF


def keep_elements(source: Dataset, pseudonyms: Pseudonyms, *, little_endian: bool) -> Dataset:
    """Return the elements of a file that `RULES` keep, with their allowed values."""
    return _Keeper(pseudonyms, little_endian, _is_signed(source)).keep(source, RULES)


class _Keeper:
    """Applies rules to the data sets of one file."""

    def __init__(self, pseudonyms: Pseudonyms, little_endian: bool, signed: bool) -> None:
        self._pseudonyms, self._little_endian, self._signed = pseudonyms, little_endian, signed

    def keep(self, source: Dataset, rules: Rules) -> Dataset:
        kept = Dataset()
        for tag in source.keys():  # noqa: SIM118 - iterating over the data set would create every value
            keyword = keyword_for_tag(tag)
            rule = rules.get(keyword)
            if rule is not None:
                kept[tag] = DataElement(tag, self._vr(tag), self._value(source, keyword, rule))
        return kept

    def _value(self, source: Dataset, keyword: str, rule: Rule) -> Any:
        """Return the new value of an element; empty if no value is allowed."""
        match rule:
            case Plain():
                return self._stand_in(keyword, rule, _texts(source, keyword))
            case Terms():
                return _known_terms(_texts(source, keyword), rule)
            case Number(lowest, highest, most):
                return self._numbers(keyword, values_of(source, keyword)[:most], lowest, highest)
            case Items(rules):
                return Sequence([item for each in _items(source, keyword) if (item := self.keep(each, rules))])
            case Codes(rules):
                return Sequence([item for each in _items(source, keyword) if (item := self._code(each, rules))])
            case Table(rules):
                return Sequence([self._table(each, rules) for each in _items(source, keyword)])
            case _:
                assert_never(rule)

    def _stand_in(self, keyword: str, rule: Plain, texts: list[str]) -> str:
        if rule is Plain.EMPTY or not any(texts):
            return ""
        if rule is Plain.PSEUDONYM:
            return self._pseudonyms.identifier(keyword, "\\".join(texts))
        return self._pseudonyms.sop_class(texts[0]) if rule is Plain.SOP_CLASS else self._pseudonyms.uid(texts[0])

    def _numbers(self, keyword: str, values: list[object], lowest: float, highest: float) -> Any:
        """Return the allowed numbers in the form of their VR.

        In decimal strings, a value that is not an allowed number becomes empty. Binary numbers end before the first
        such value.
        """
        fit = [number if number is not None and lowest <= number <= highest else None for number in numbers_of(values)]
        vr = dictionary_VR(keyword)
        if vr == "DS":
            while fit and fit[-1] is None:
                fit.pop()
            return ["" if number is None else _decimal(number) for number in fit]
        numbers = [number for number in takewhile(lambda number: number is not None, fit) if number is not None]
        if vr in ("FD", "FL"):
            return numbers
        whole = [math.trunc(number) for number in numbers]
        return [_wrap(number, signed=self._signed) for number in whole] if vr == "US or SS" else whole

    def _code(self, item: Dataset, rules: Rules) -> Dataset:
        """Return a coded concept (PS3.3 section 8.8) with the meaning from `MEANINGS`; an unknown code is removed."""
        kept = self.keep(item, rules)
        value = "\\".join(_texts(item, "CodeValue"))
        if value in MEANINGS:
            kept.CodeValue, kept.CodeMeaning = value, MEANINGS[value]
            kept.CodingSchemeDesignator = "SRT" if _SRT.match(value) else "SCT"
        return kept

    def _table(self, item: Dataset, rules: Rules) -> Dataset:
        """Return the item of a lookup table with only its entries; without the table if it cannot be read."""
        kept = self.keep(item, rules)
        try:
            count, first, bits, entries = read_entries(item, little_endian=self._little_endian)
        except MalformedDicom:
            return kept
        signed = item["LUTDescriptor"].VR == "SS"
        descriptor = [_wrap(number, signed=signed) for number in (count & _WORD, first, bits)]
        kept[0x00283002] = DataElement(0x00283002, "SS" if signed else "US", descriptor)
        kept[0x00283006] = DataElement(0x00283006, "OW", self._words(entries))
        return kept

    def _words(self, entries: Any) -> bytes:
        return np.asarray(entries).astype("<u2" if self._little_endian else ">u2").tobytes()

    def _vr(self, tag: BaseTag) -> str:
        vr = dictionary_VR(tag)
        return ("SS" if self._signed else "US") if vr == "US or SS" else vr


def _is_signed(source: Dataset) -> bool:
    return values_of(source, "PixelRepresentation")[:1] == [1]


def _known_terms(texts: list[str], rule: Terms) -> list[str]:
    read = (text.upper() if rule.in_any_case else text for text in texts[: rule.most])
    return list(takewhile(rule.terms.__contains__, read))


def _texts(source: Dataset, keyword: str) -> list[str]:
    """Return an element's values as written, whatever their VR; an empty list if the element is absent."""
    value: Any = source.get_item(keyword).value if keyword in source else None
    if isinstance(value, bytes):
        return [part.strip(" \0") for part in value.decode("latin-1").split("\\")]
    if isinstance(value, Sequence) or value is None:
        return []
    return [str(part).strip(" \0") for part in (value if isinstance(value, MultiValue | list) else [value])]


def _items(source: Dataset, keyword: str) -> list[Dataset]:
    return [value for value in values_of(source, keyword) if isinstance(value, Dataset)]


def _decimal(number: float) -> str:
    """Return the shortest decimal string of a number; it is rounded only if it is too long."""
    if number.is_integer():
        return str(int(number))
    for text in (repr(number), _LEADING_ZERO.sub(r"\1.", repr(number))):
        if len(text) <= _DS_CHARACTERS:
            return text
    return format_number_as_ds(number)


def _wrap(number: int, *, signed: bool) -> int:
    """Reinterpret 16 bits as a signed or unsigned number."""
    number &= _WORD
    return number - 0x10000 if signed and number > 0x7FFF else number
