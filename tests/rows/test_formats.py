"""Every format is read as the usual programs write it, in any pieces, and damage is an error that says where."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import shutil
import subprocess
import zipfile
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.rows.formats import ALSO, FORMATS, PACKED
from safeguard_cli.rows.records import Record
from safeguard_cli.rows.source import count_rows, first_lines, open_source

ROWS = [{"id": 1, "text": "WIN a prize, call now"}, {"id": 2, "text": "see you at lunch — é😀"}]


def read(source: object, **options: object) -> list[Record]:
    with open_source(source, **options) as rows:  # type: ignore[arg-type]
        return list(rows)


def fields(source: object, **options: object) -> list[dict]:
    return [dict(record.fields or {}) for record in read(source, **options)]


class Drops(io.BytesIO):
    """A stream that gives a few bytes at a time."""

    def read1(self, size: int | None = -1) -> bytes:
        return super().read1(3)


# What the usual programs write: a writer for every format, each with its extension and packing.


def by_pandas(path: Path, kind: str) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(ROWS)
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "tsv":
        frame.to_csv(path, index=False, sep="\t")
    elif kind == "parquet":
        frame.to_parquet(path)
    elif kind in ("xlsx", "xlsm", "ods"):
        frame.to_excel(path, index=False)
    else:
        frame.to_json(path, orient="records", lines=kind != "json", force_ascii=False)


def by_duckdb(path: Path, kind: str) -> None:
    duckdb = pytest.importorskip("duckdb")
    how = {"json": "(FORMAT json, ARRAY true)", "parquet": "(FORMAT parquet)"}.get(kind, "(FORMAT json)")
    how = {"csv": "(HEADER)", "tsv": "(HEADER, DELIMITER '\t')"}.get(kind, how)
    values = ", ".join("(" + ", ".join((str(row["id"]), f"'{row['text']}'")) + ")" for row in ROWS)
    duckdb.sql(f"COPY (SELECT * FROM (VALUES {values}) AS t(id, text)) TO '{path}' {how}")


def by_jq(path: Path, kind: str) -> None:
    if not shutil.which("jq"):
        pytest.skip("needs jq")
    how = {"json": ["jq", "."], "jsonl": ["jq", "-c", ".[]"], "txt": ["jq", "-r", ".[].text"]}[kind]
    path.write_bytes(subprocess.run(how, input=json.dumps(ROWS).encode(), capture_output=True, check=True).stdout)


def by_openpyxl(path: Path, kind: str) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["id", "text"])
    for row in ROWS:
        book.active.append([row["id"], row["text"]])
    book.save(path)


WRITTEN = [
    *((by_pandas, kind) for kind in ("csv", "tsv", "json", "jsonl", "parquet", "xlsx")),
    *((by_duckdb, kind) for kind in ("csv", "tsv", "json", "ndjson", "parquet")),
    *((by_jq, kind) for kind in ("json", "jsonl", "txt")),
    *((by_openpyxl, kind) for kind in ("xlsx", "xlsm")),
]


@pytest.mark.parametrize(("write", "kind"), WRITTEN, ids=lambda value: getattr(value, "__name__", value))
def test_what_the_usual_programs_write_is_read(tmp_path, write, kind):
    path = tmp_path / f"x.{kind}"
    write(path, kind)
    found = fields(path)
    assert [row["text"] for row in found] == [row["text"] for row in ROWS]
    assert "id" not in found[0] or [str(row["id"]) for row in found] == ["1", "2"]
    assert count_rows(path) == 2


def test_every_extension_is_among_those_that_are_tried():
    tried = {kind for _, kind in WRITTEN}
    assert {*FORMATS, *ALSO} - tried == {"lines", "xlsb", "xls", "ods"}, "a format without a test"


# Packing


def zstd(data: bytes) -> bytes:
    return pytest.importorskip("zstandard").ZstdCompressor(write_checksum=True).compress(data)


PACK = {".gz": gzip.compress, ".zst": zstd, ".bz2": bz2.compress, ".xz": lzma.compress}
LINES = b"".join(json.dumps({"id": number, "text": f"see you {number}"}).encode() + b"\n" for number in range(3000))


@pytest.mark.parametrize("ending", PACKED)
def test_a_packed_input_is_read_whatever_its_name_and_its_pieces(tmp_path, ending):
    pytest.importorskip("backports.zstd" if ending == ".zst" else "json")
    half = LINES.index(b"\n", len(LINES) // 2) + 1
    packed = PACK[ending](LINES[:half]) + PACK[ending](LINES[half:])
    for name in (f"x.jsonl{ending}", f"x.ndjson{ending.upper()}", "x.jsonl", "x.jsonl.gz"):
        path = tmp_path / name
        path.write_bytes(packed)
        assert [row["id"] for row in fields(path)] == [*range(3000)]
    assert len(read(Drops(packed[: len(PACK[ending](LINES[:half]))]))) == LINES[:half].count(b"\n")
    with pytest.raises(SafeguardError, match="cut short"):
        read(io.BytesIO(packed[:-9]), format="jsonl")


def test_a_workbook_may_be_of_another_kind_than_its_name_says(tmp_path):
    path = workbook(tmp_path / "x.xlsx", [["id", "text"], [1, "a b"]])
    for name in ("export.xls", "export.ods", "export.xlsb"):
        assert fields(shutil.copy(path, tmp_path / name)) == [{"id": "1", "text": "a b"}]
    (tmp_path / "torn.xls").write_bytes(path.read_bytes()[:900])
    with pytest.raises(UsageError, match="not a spreadsheet that can be read"):
        open_source(tmp_path / "torn.xls")


def test_zstd_may_begin_with_a_frame_to_skip_as_pzstd_writes_it():
    pytest.importorskip("backports.zstd")
    skipped = b"\x50\x2a\x4d\x18\x04\0\0\0size"
    packed = (skipped + zstd(b'{"text": "a"}\n')) + (skipped + zstd(b'{"text": "b"}\n'))
    for stream in (io.BytesIO(packed), Drops(packed)):
        found = []
        with suppress(SafeguardError), open_source(stream, format="jsonl") as rows:  # Drops breaks off at its end
            for row in rows:
                found.append(row.fields)
        assert found == [{"text": "a"}, {"text": "b"}]


@pytest.mark.parametrize("ending", PACKED)
def test_damage_in_a_packed_input_ends_it_with_a_sentence_after_whole_rows(ending):
    pytest.importorskip("backports.zstd" if ending == ".zst" else "json")
    first = PACK[ending](LINES)
    second = bytearray(PACK[ending](LINES))
    second[len(second) // 2 : len(second) // 2 + 9] = b"\xff" * 9
    found = []
    with (
        pytest.raises(SafeguardError, match="reading failed after line"),
        open_source(io.BytesIO(first + second), format="jsonl") as rows,
    ):
        for row in rows:
            found.append(row)
    assert [row.fields["id"] for row in found[:3000] if row.fields] == [*range(3000)]


@pytest.mark.parametrize("ending", PACKED)
def test_a_name_that_claims_a_packing_is_refused_if_there_is_none(tmp_path, ending):
    (tmp_path / f"x.jsonl{ending}").write_bytes(LINES)
    with pytest.raises(UsageError, match=f"not packed with {PACKED[ending]}.*without {ending}"):
        open_source(tmp_path / f"x.jsonl{ending}")


# JSON

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(st.text(), VALUES, min_size=1, max_size=4), max_size=5)


@given(OBJECTS, st.sampled_from(["array", "values"]), st.sampled_from([None, 0, 2, "\t"]), st.booleans())
@settings(deadline=None)
def test_any_objects_come_back_however_they_are_spread(objects, kind, indent, ascii_only):
    parts = [json.dumps(each, indent=indent, ensure_ascii=ascii_only) for each in objects]
    text = "[" + ",\n".join(parts) + "]" if kind == "array" else "\r\n".join(parts)
    data = text.encode("utf-8", "surrogatepass")
    for source in (io.BytesIO(data), Drops(data)):
        records = read(source, format="json")
        assert len(records) == len(objects)
        for record, each in zip(records, objects, strict=True):
            if record.error:  # a lone surrogate
                assert record.error.code in ("bad_json", "bad_encoding")
                continue
            assert record.fields == each
            assert json.loads(record.raw) == each
            assert b"\n" not in record.raw and b"\r" not in record.raw
    with open_source(io.BytesIO(data), format="json") as source:
        assert [*source.counts()] == [*range(1, len(objects) + 1)]


@given(st.binary(max_size=60) | st.text(alphabet='[]{}",:\\ \n1a', max_size=60).map(str.encode))
@settings(deadline=None)
def test_no_bytes_make_json_crash_and_pieces_change_nothing(data):
    def outcome(source: object) -> object:
        found: list[object] = []
        try:
            with open_source(source, format="json") as rows:  # type: ignore[arg-type]
                for row in rows:
                    found.append((row.line, row.raw, row.error))
        except SafeguardError as problem:
            return found, str(problem)
        return found, ""

    assert outcome(io.BytesIO(data)) == outcome(Drops(data))


def test_a_row_of_json_keeps_its_bytes_but_line_breaks():
    data = b'[\n  {\n    "n": 1.10,\n    "big": 123456789012345678901,\n    "a": "x\\ny",  "a": [1,\n 2]\n  }\n]'
    (record,) = read(io.BytesIO(data))
    assert record.raw == b'{"n": 1.10,"big": 123456789012345678901,"a": "x\\ny",  "a": [1,2]}'
    assert record.fields["big"] == 123456789012345678901
    assert record.line == 2


def test_an_element_that_is_no_object_is_an_error_row_and_the_next_is_read():
    data = b'[{"text": "a b"}, 7, "x", [1], {"text": NaN}, {"text": "c d"}]'
    assert [(record.line, record.error and record.error.code) for record in read(io.BytesIO(data), format="json")] == [
        (1, None),
        *((1, "bad_row"),) * 3,
        (1, "bad_json"),
        (1, None),
    ]


@pytest.mark.parametrize(
    ("data", "rows", "said"),
    [
        (b'[{"a": 1},\n{"a": 2', 1, "the file ends within the value that begins on line 2"),
        (b'[{"a": 1},\n{"a": 2}\n', 2, "the file ends before the array does"),
        (b'{"a": "x\n{"a": 2}', 0, "line 1, a quote is opened and never closed"),
        (b'[{"a": [1}, {"b": 2}]', 0, "line 1, '}' closes what another bracket opened"),
        (b'{"a":\n1}\n}\n{"a": 2}', 1, "line 3, there is neither an object nor an array"),
        (b'{"a":\n1}\n\nnull\n', 1, "line 4, there is neither an object nor an array"),
    ],
)
def test_json_whose_brackets_do_not_fit_ends_after_its_whole_rows_and_says_where(data, rows, said):
    found = []
    with pytest.raises(SafeguardError) as problem, open_source(io.BytesIO(data + b" " * 9), format="json") as source:
        for record in source:
            found.append(record)
    assert said in str(problem.value)
    assert len(found) == rows


def test_hostile_nesting_and_size_are_error_rows(tmp_path):
    data = b"[" + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b', {"text": "' + b"\\" * 5000 + b'"}, {"text": "a b"}]'
    deep, big, fine = read(io.BytesIO(data), format="json", max_row_bytes=1 << 20)
    assert (deep.error.code, big.error, fine.error) == ("bad_row", None, None)
    _, big, fine = read(io.BytesIO(data), format="json", max_row_bytes=1000)
    assert (big.error.code, len(big.raw), fine.error) == ("row_too_big", 1001, None)


def test_json_lines_in_a_json_file_are_read_line_by_line(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b'{"text": "a b"}\n{"text": \n{"text": "c d"}\n')
    assert [record.error and record.error.code for record in read(path)] == [None, "bad_json", None]


def test_a_table_by_columns_as_pandas_writes_it_is_refused_with_what_writes_rows(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"id":{"0":1,"1":2},"text":{"0":"a b","1":"c d"}}')
    with pytest.raises(UsageError, match="orient='records'"):
        fields(path)
    path.write_text('{"id":{"0":1},"user":{"name":"a b"}}')
    assert len(fields(path)) == 1


# Plain text


@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]))))
@settings(deadline=None)
def test_each_line_of_text_that_is_not_blank_is_a_row(lines):
    data = "\r\n".join(lines).encode()
    written = [line.removeprefix("\ufeff") for line in lines]
    found = [(record.line, record.fields["text"]) for record in read(io.BytesIO(data), format="lines")]
    wanted = [(at, line) for at, line in enumerate(written, 1) if line.encode().strip()]
    assert [line for line, _ in found] == [at for at, _ in wanted]
    assert [text for _, text in found][1:] == [text for _, text in wanted][1:]


def test_a_line_that_is_not_valid_text_is_an_error_row(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"see you\n\xff\xfe oh\n\n<html> is a tag\n")
    assert [(r.line, r.error and r.error.code) for r in read(path)] == [(1, None), (2, "bad_encoding"), (4, None)]
    assert fields(path, encoding="latin-1")[1] == {"text": "ÿþ oh"}
    path.write_bytes(b"<html> is a tag\n")
    with pytest.raises(UsageError, match="HTML"):
        read(path)
    assert fields(path, format="lines") == [{"text": "<html> is a tag"}]


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ('{"text": "a b"}\n', "--format jsonl"),
        ('[{"text": "a b"}]\n', "--format json,"),
        ("id,text\n1,a b\n", "--format csv"),
        ("id\tnote\n1\ta b\n", "--format tsv"),
    ],
)
def test_a_text_file_that_holds_something_else_is_refused_unless_it_is_asked_for(tmp_path, content, wanted):
    path = tmp_path / "x.txt"
    path.write_text(content)
    with pytest.raises(UsageError, match=wanted):
        open_source(path)
    assert len(fields(path, format="lines")) == content.count("\n")


# Spreadsheets


def workbook(path: Path, rows: list[list[object]], *merged: str) -> Path:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    for place in merged:
        book.active.merge_cells(place)
    book.save(path)
    return path


def test_cells_are_texts_whole_numbers_have_no_fraction_and_dates_are_iso(tmp_path):
    values = [
        7,
        1.5,
        True,
        "007",
        "=1+1",
        datetime(2024, 1, 2, 3, 4, 5),
        date(2024, 5, 6),
        time(7, 8),
        timedelta(hours=30),
    ]
    path = workbook(tmp_path / "x.xlsx", [["text", *"bcdefghi"], values])
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.load_workbook(path)
    book.active["E2"].data_type = "s"  # a text that looks like a formula
    book.save(path)
    (record,) = read(path)
    assert [*record.cells] == [
        *("7", "1.5", "TRUE", "007", "=1+1", "2024-01-02T03:04:05", "2024-05-06", "07:08:00", "30:00:00")
    ]


def test_lines_are_the_sheets_rows_empty_rows_at_the_end_are_none_and_merged_cells_count_below(tmp_path):
    rows = [[], ["id", "text", "label"], [1, "a b", "spam"], [], [2, "c d", None], ["", "e f"], [None], [None, ""]]
    path = workbook(tmp_path / "x.xlsx", rows, "C3:C5")
    found = [(record.line, record.cells) for record in read(path)]
    assert found == [
        (3, ("1", "a b", "spam")),
        (4, ("", "", "")),
        (5, ("2", "c d", "spam")),
        (6, ("", "e f", "")),
    ]
    assert count_rows(path) == 4
    assert first_lines(path, 2) == [",,", "id,text,label"]


def test_a_sheet_goes_by_name_or_number_and_a_hidden_one_is_not_the_first(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.title = "hidden"
    book.active.sheet_state = "hidden"
    for name in ("Posts", "3", "Notes"):
        sheet = book.create_sheet(name)
        sheet.append(["text"])
        sheet.append([name])
    book.save(path := tmp_path / "x.xlsx")
    with open_source(path) as source:
        assert source.remark == "Posts, of 3; --sheet names another: 3, Notes"
        assert [record.fields for record in source] == [{"text": "Posts"}]
    for wanted, found in (("Notes", "Notes"), ("2", "Posts"), ("3", "3")):
        assert fields(path, sheet=wanted) == [{"text": found}]
    with pytest.raises(UsageError, match="no sheet 'notes'; did you mean 'Notes'"):
        open_source(path, sheet="notes")
    with pytest.raises(UsageError, match="--sheet is for spreadsheets"):
        open_source(io.BytesIO(b"{}"), sheet="1")


def test_a_title_above_the_header_is_refused_with_the_option_that_skips_it(tmp_path):
    path = workbook(tmp_path / "x.xlsx", [["Export of comments"], [], ["id", "text", "label"], [1, "a b", "spam"]])
    path2 = workbook(tmp_path / "y.xlsx", [["Export of comments"], ["id", "text", "label"], [1, "a b", "spam"]])
    for each in (path, path2):
        with pytest.raises(UsageError, match="--skip-rows 1"):
            open_source(each)
    for each, above in ((path, 1), (path, 2), (path2, 1)):
        assert fields(each, above=above) == [{"id": "1", "text": "a b", "label": "spam"}]
    with pytest.raises(UsageError, match="no header is left below the 5 lines"):
        open_source(path, above=5)


SHEET = (
    '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>{}</sheetData></worksheet>'
)


def by_hand(path: Path, cells: str) -> Path:
    """Write the least that a workbook can be."""
    main = "http://schemas.openxmlformats.org"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{main}/package/2006/content-types"><Default Extension="xml" ContentType="application/xml"/>'
            "</Types>",
        )
        file.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{main}/package/2006/relationships"><Relationship Id="r1" Type="{main}'
            '/officeDocument/2006/relationships/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        )
        file.writestr(
            "xl/workbook.xml",
            f'<workbook xmlns="{main}/spreadsheetml/2006/main" xmlns:r="{main}/officeDocument/2006/relationships">'
            '<sheets><sheet name="S" sheetId="1" r:id="r1"/></sheets></workbook>',
        )
        file.writestr(
            "xl/_rels/workbook.xml.rels",
            f'<Relationships xmlns="{main}/package/2006/relationships"><Relationship Id="r1" Type="{main}'
            '/officeDocument/2006/relationships/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
        )
        file.writestr("xl/worksheets/sheet1.xml", SHEET.format(cells))
    return path


def inline(*rows: tuple[str, ...]) -> str:
    cells = ("".join(f'<c t="inlineStr"><is><t>{cell}</t></is></c>' for cell in row) for row in rows)
    return "".join(f"<row>{row}</row>" for row in cells)


def test_a_workbook_made_by_hand_without_places_is_read(tmp_path):
    pytest.importorskip("python_calamine")
    path = by_hand(tmp_path / "x.xlsx", inline(("id", "text"), ("1", "a b"), ("2", "c &lt; d")))
    assert fields(path) == [{"id": "1", "text": "a b"}, {"id": "2", "text": "c < d"}]


def test_a_sheet_that_would_take_too_much_memory_is_refused_before_it_is_loaded(tmp_path):
    pytest.importorskip("python_calamine")
    far = '<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'
    with pytest.raises(UsageError, match="17,179,869,184 cells"):
        open_source(by_hand(tmp_path / "x.xlsx", far))


@given(st.binary(max_size=80), st.integers(0, 2000))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_make_a_spreadsheet_crash(tmp_path, junk, place):
    pytest.importorskip("python_calamine")
    whole = by_hand(tmp_path / "whole.xlsx", inline(("id", "text"), ("1", "a b"))).read_bytes()
    for data in (junk, b"PK\x03\x04" + junk, whole[:place] + junk + whole[place + len(junk) :], whole[:place]):
        for name in ("x.xlsx", "x.xls", "x.ods", "x.xlsb"):
            (tmp_path / name).write_bytes(data)
            try:
                read(tmp_path / name)
            except UsageError as problem:
                assert str(problem).startswith(str(tmp_path))


def test_a_spreadsheet_in_a_pipe_and_one_that_is_a_page_are_refused(tmp_path):
    with pytest.raises(UsageError, match="needs a file"):
        open_source(io.BytesIO(b"PK\x03\x04"), format="xlsx")
    (tmp_path / "x.xls").write_bytes(b"<html><table><tr><td>text</td></tr></table></html>")
    pytest.importorskip("python_calamine")
    with pytest.raises(UsageError, match="HTML"):
        open_source(tmp_path / "x.xls")
    (tmp_path / "x.xlsx").write_bytes(b"id,text\n1,a b\n")
    with pytest.raises(UsageError, match="--format jsonl or csv"):
        open_source(tmp_path / "x.xlsx")


def test_rows_above_a_header_are_skipped_in_tables_alone():
    assert fields(io.BytesIO(b"Export\n\nid,text\n1,a b\n"), format="csv", above=2) == [{"id": "1", "text": "a b"}]
    with pytest.raises(UsageError, match="no header is left below the 9 lines"):
        open_source(io.BytesIO(b"Export\n\nid,text\n1,a b\n"), format="csv", above=9)
    with pytest.raises(UsageError, match="--skip-rows is for tables"):
        open_source(io.BytesIO(b'x\n{"text": "a b"}\n'), format="jsonl", above=1)


class Breaks(io.BytesIO):
    """A stream that fails after so many bytes, as a broken disk does."""

    def __init__(self, data: bytes, good: int) -> None:
        super().__init__(data[:good])

    def read1(self, size: int = -1) -> bytes:
        if data := super().read1(min(size, 7)):
            return data
        raise OSError("broken")


TABLES = st.text(st.sampled_from('ab,"\r\n é;0'), max_size=300)


@given(TABLES, st.sampled_from([20, 60, 1000]), st.sampled_from(["id,text", "text"]), st.none() | st.integers(20, 320))
def test_rows_are_counted_without_being_parsed_as_many_as_come(text: str, limit: int, header: str, good: int | None):
    data = f"{header}\nfirst\n{text}".encode()

    def opened():
        stream = io.BytesIO(data) if good is None else Breaks(data, good)
        return open_source(stream, format="csv", max_row_bytes=limit)

    with opened() as source:
        come = 0
        with suppress(SafeguardError):
            for _ in source:
                come += 1
    with opened() as source:
        assert [*source.counts()] == [*range(1, come + 1)]
