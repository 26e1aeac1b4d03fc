"""What a header says against a frontal chest radiograph, in the spellings that come up."""

import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from shared.imaging.dicom_file import read_dicom
from shared.imaging.header import PREFIX_BYTES
from shared.imaging.tagged_view import read_tag_flags
from shared.vocabulary.flags import Flag
from tests.synthetic_dicom import make_dicom, make_image


def flags(**elements: object) -> tuple[Flag, ...]:
    file = make_dicom(make_image(64, 64), **elements)
    return read_tag_flags(read_dicom(file, max_bytes=PREFIX_BYTES))


def coded(value: str, scheme: str = "SCT") -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "as coded"
    return Sequence([item])


@pytest.mark.parametrize(
    "sop_class",
    [
        uid.ComputedRadiographyImageStorage,
        uid.DigitalXRayImageStorageForPresentation,
        uid.DigitalXRayImageStorageForProcessing,
        uid.SecondaryCaptureImageStorage,
        uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        "1.2.3.4.5",  # a vendor's own
    ],
)
def test_radiographs_and_what_may_be_one_are_not_flagged(sop_class: str) -> None:
    assert flags(SOPClassUID=sop_class) == ()


@pytest.mark.parametrize(
    "sop_class",
    [
        uid.CTImageStorage,
        uid.MRImageStorage,
        uid.UltrasoundImageStorage,
        uid.DigitalMammographyXRayImageStorageForPresentation,
        uid.DigitalIntraOralXRayImageStorageForPresentation,
        uid.XRayAngiographicImageStorage,
        uid.NuclearMedicineImageStorage,
        uid.EnhancedCTImageStorage,
    ],
)
def test_another_storage_class_is_no_radiograph(sop_class: str) -> None:
    assert flags(SOPClassUID=sop_class) == (Flag.NOT_A_RADIOGRAPH,)


@pytest.mark.parametrize("modality", ["CT", "MR", "US", "MG", "IO", "XA", "NM", "PT", "ES", "XC"])
def test_a_secondary_capture_of_another_modality_is_no_radiograph(modality: str) -> None:
    assert flags(SOPClassUID=uid.SecondaryCaptureImageStorage, Modality=modality) == (Flag.NOT_A_RADIOGRAPH,)


@pytest.mark.parametrize("modality", ["CR", "DX", "RG", "PX", "RF", "DR", "OT", "", "cr ", "???"])
def test_a_modality_that_may_be_a_radiograph_is_not_flagged(modality: str) -> None:
    assert flags(Modality=modality) == ()


@pytest.mark.parametrize("position", ["LL", "RL", "LATERAL", "lateral", "LAT", "L LAT", "LT LATERAL", "LAT-R", "RLAT"])
def test_a_position_from_the_side_is_lateral(position: str) -> None:
    assert flags(ViewPosition=position) == (Flag.LATERAL_VIEW,)


@pytest.mark.parametrize("position", ["PA", "AP", "", "LLD", "RLD", "LAO", "RPO", "ANTERIOR", "AP LLD", "COLLATERAL"])
def test_any_other_position_is_not_lateral(position: str) -> None:
    assert flags(ViewPosition=position) == ()


@pytest.mark.parametrize(
    ("value", "scheme"),
    [("399067008", "SCT"), ("399173006", "SCT"), ("399198007", "SCT"), ("R-10236", "SRT"), ("R-10232", "SNM3")],
)
def test_a_coded_lateral_projection_is_lateral(value: str, scheme: str) -> None:
    assert flags(ViewCodeSequence=coded(value, scheme)) == (Flag.LATERAL_VIEW,)


@pytest.mark.parametrize("value", ["399348003", "272479007", "399033003", "no code", ""])
def test_any_other_coded_projection_is_not_lateral(value: str) -> None:
    assert flags(ViewCodeSequence=coded(value)) == ()


CHESTS = (
    "CHEST,chest,PORT CHEST,THORAX,TORAX,LUNG,LUNGS,RIBS,STERNUM,HEART,CHESTABDOMEN,ABD CHEST,WHOLEBODY,,ANY OLD PART"
)
OTHERS = "EXTREMITY,LEG,KNEE,HAND,FOOT,SKULL,ABDOMEN,abdomen ,PELVIS,HIP,R HIP,TSPINE,THORACIC SPINE,L SHOULDER,BREAST"


@pytest.mark.parametrize("part", CHESTS.split(","))
def test_the_chest_in_any_spelling_and_the_unknown_are_not_flagged(part: str) -> None:
    assert flags(BodyPartExamined=part) == ()


@pytest.mark.parametrize("part", OTHERS.split(","))
def test_another_part_is_no_chest(part: str) -> None:
    assert flags(BodyPartExamined=part) == (Flag.NOT_A_CHEST,)


@pytest.mark.parametrize(("value", "scheme"), [("818981001", "SCT"), ("85562004", "SCT"), ("T-D8700", "SRT")])
def test_a_coded_region_elsewhere_is_no_chest(value: str, scheme: str) -> None:
    assert flags(AnatomicRegionSequence=coded(value, scheme)) == (Flag.NOT_A_CHEST,)


@pytest.mark.parametrize("value", ["51185008", "816094009", "T-D3000", "416550000", "12345678"])
def test_the_chest_as_a_code_and_unknown_codes_are_not_flagged(value: str) -> None:
    assert flags(AnatomicRegionSequence=coded(value)) == ()


def test_a_region_beside_the_chest_does_not_count() -> None:
    both = Sequence([*coded("51185008"), *coded("818981001")])
    assert flags(AnatomicRegionSequence=both) == ()
    assert flags(AnatomicRegionSequence=coded("818981001"), BodyPartExamined="CHEST") == ()


def test_every_reason_is_said() -> None:
    said = flags(SOPClassUID=uid.CTImageStorage, BodyPartExamined="HEAD", ViewPosition="LL")
    assert said == (Flag.NOT_A_RADIOGRAPH, Flag.NOT_A_CHEST, Flag.LATERAL_VIEW)
