"""Which pins install everywhere, told from the names of an index's files."""

from deploy.pins import GLIBC, File, Pin, read, report


def pin(*names: str, requires_python: str = "", version: str = "1.0") -> Pin:
    return Pin.of("thing", version, [File(name, requires_python) for name in names])


def test_a_wheel_without_compiled_code_runs_anywhere() -> None:
    made = pin("thing-1.0-py3-none-any.whl", "thing-1.0.tar.gz")
    assert made.fits
    assert made.newest == (0, 0)


def test_a_source_archive_is_no_wheel() -> None:
    assert len(pin("thing-1.0.tar.gz", "thing-0.9-py3-none-any.whl").missing) == 8


def test_a_python_or_machine_without_a_wheel_is_named() -> None:
    names = [f"thing-1.0-cp3{minor}-cp3{minor}-manylinux2014_x86_64.whl" for minor in (11, 12, 13, 14)]
    made = pin(
        *names, "thing-1.0-cp311-abi3-macosx_11_0_arm64.whl", *(n.replace("x86_64", "aarch64") for n in names[:3])
    )
    assert made.missing == ["3.14 aarch64"]


def test_a_stable_abi_serves_later_pythons_only() -> None:
    names = [f"thing-1.0-cp312-abi3-manylinux_2_17_{machine}.whl" for machine in ("x86_64", "aarch64")]
    assert pin(*names).missing == ["3.11 x86_64", "3.11 aarch64"]


def test_a_wheel_that_refuses_a_python_does_not_count() -> None:
    made = pin("thing-1.0-py3-none-any.whl", requires_python=">=3.10,<3.14")
    assert made.missing == ["3.14 x86_64", "3.14 aarch64"]
    assert pin("thing-1.0-py3-none-any.whl", requires_python=">=3.11.4").fits


def test_the_oldest_c_library_of_several_wheels_counts_and_the_newest_of_several_places() -> None:
    made = pin(
        "thing-1.0-cp311-abi3-manylinux_2_34_x86_64.whl",
        "thing-1.0-cp311-abi3-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        "thing-1.0-cp311-abi3-manylinux_2_31_aarch64.whl",
    )
    assert not made.missing
    assert made.glibc["3.12", "x86_64"] == (2, 17)
    assert made.newest == (2, 31) > GLIBC
    assert not made.fits


def test_a_version_may_be_written_differently() -> None:
    assert pin("thing-1.0-py3-none-any.whl", version="1").fits


def test_the_report_fails_for_what_is_missing_unless_there_is_a_reason() -> None:
    plain, bare = pin("thing-1.0-py3-none-any.whl"), pin("thing-1.0.tar.gz")
    assert report([plain], {}) == (["PIN                                  GLIBC  MISSING", lines_end(1, 0)], True)
    lines, good = report([plain, bare], {})
    assert not good
    assert lines[1].startswith("thing==1.0 ")
    assert "3.11 x86_64, 3.11 aarch64, 3.12 x86_64" in lines[1]
    assert lines[-1] == lines_end(1, 1)
    lines, good = report([bare], {"thing": "only the documentation needs it"})
    assert good
    assert lines[1].endswith("(allowed: only the documentation needs it)")


def test_reads_constraints() -> None:
    assert read("# a remark\n\na-b==1.0.post1\nC==2\n") == [("a-b", "1.0.post1"), ("C", "2")]


def lines_end(plain: int, bad: int) -> str:
    return f"{plain} more run anywhere. {bad} lack a wheel or ask for a C library newer than 2.28."
