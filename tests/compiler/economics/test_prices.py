"""Price, trace and carbon files: what they say, and errors that name the row."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

from tensmith.compiler.economics.csv_rows import csv_rows
from tensmith.compiler.economics.loads import load_of, read_carbon, read_trace
from tensmith.compiler.economics.prices import read_prices, stale_note
from tensmith.compiler.errors import UsageError

HEAD = (
    "name,region,cpu,vcpus,threads_per_core,memory_gib,price_per_hour,currency,purchase,source,date"
)
ROW = "small,north,zen4,4,2,8,0.17,USD,ondemand,list,2026-10-01"


def _file(folder: Path, *lines: str) -> Path:
    path = folder / "given.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_offers_of_the_own_columns(tmp_path: Path) -> None:
    path = _file(tmp_path, "# of October", HEAD + ",rack", "", ROW + ",12")
    (offer,) = read_prices(path)
    assert (offer.cores, offer.memory_gib, offer.price.value) == (2, 8.0, 0.17)
    assert (offer.price.unit, offer.price.date) == ("USD/h", "2026-10-01")
    assert offer.price.method == f"list, '{path}', line 4"
    assert offer.extra == {"rack": "12"}
    assert offer.label == "small north ondemand"


def test_owned_devices(tmp_path: Path) -> None:
    head = (
        "name,vcpus,memory_gib,currency,purchase,source,date,purchase_price,install,life_years,"
        "duty,watts,tariff"
    )
    row = "box,4,4,USD,owned,bill,2026-10-01,100,0,3,1,2,0.15"
    (offer,) = read_prices(_file(tmp_path, head, row))
    assert offer.price.value == pytest.approx(100 / (3 * 8766) + 0.002 * 0.15)
    assert offer.watts == 2.0
    with pytest.raises(UsageError, match="tariff is missing"):
        read_prices(_file(tmp_path, head, row.removesuffix("0.15")))
    with pytest.raises(UsageError, match=r"duty is 1\.5"):
        read_prices(_file(tmp_path, head, row.replace(",3,1,", ",3,1.5,")))
    with pytest.raises(UsageError, match="life_years is missing"):
        read_prices(_file(tmp_path, head, row.replace(",3,1,", ",,1,")))


def test_offers_of_a_catalogue(tmp_path: Path) -> None:
    head = (
        "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Region,SpotPrice,"
        "Price"
    )
    path = _file(
        tmp_path, head, "m.large,,,2.0,8.0,,east,0.03,0.096", "g.xl,T4,1,4,16,,east,,0.526"
    )
    first, spot, gpu = read_prices(path)
    assert (first.purchase, first.price.value, first.cores) == ("ondemand", 0.096, 1)
    assert (spot.purchase, spot.price.value) == ("spot", 0.03)
    assert (gpu.accelerator, gpu.accelerator_count) == ("T4", 1.0)
    assert "taken for a core" in gpu.note
    assert "no date" in stale_note(first, date(2026, 11, 30))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROW.replace("0.17", "cheap"), "line 2: price_per_hour is 'cheap'"),
        (ROW.replace("0.17", "-1"), "line 2: price_per_hour is '-1'"),
        (ROW.replace("0.17", ""), "line 2: price_per_hour is missing"),
        (ROW.replace("0.17", "nan"), "line 2: price_per_hour is 'nan'"),
        (ROW.replace("ondemand", "lent"), "line 2: purchase is 'lent'"),
        (ROW.replace("2026-10-01", "1.10.26"), "line 2: date is '1.10.26'"),
        (ROW.replace("small", ""), "line 2: name is missing"),
        (ROW.replace(",4,2,", ",0,2,"), "line 2: vcpus is '0'"),
        (ROW + ",more", "line 2 has 12 cells, and there are 11 columns"),
        ('"small', "is no CSV"),
        ("", "has no rows"),
    ],
)
def test_wrong_rows_are_named(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        read_prices(_file(tmp_path, HEAD, row))


def test_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no column currency, purchase, source"):
        read_prices(_file(tmp_path, "name,vcpus,memory_gib,date", "a,1,1,2026-10-01"))
    with pytest.raises(UsageError, match="prices in EUR and USD"):
        read_prices(_file(tmp_path, HEAD, ROW, ROW.replace("USD", "EUR")))
    with pytest.raises(UsageError, match="several columns named name"):
        read_prices(_file(tmp_path, "name,name", "a,b"))
    with pytest.raises(UsageError, match="there is no price file"):
        read_prices(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\x00\xfe")
    with pytest.raises(UsageError, match="cannot be read as text"):
        read_prices(tmp_path / "binary.csv")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_ends_of_lines(tmp_path: Path, end: str) -> None:
    """Of every system, and within quotes they are all one."""
    text = f'{HEAD},note\n{ROW},"two\nlines"\n'.replace("\n", end)
    (tmp_path / "prices.csv").write_bytes(text.encode())
    columns, (row,) = csv_rows(tmp_path / "prices.csv", "price")
    assert columns[-1] == "note"
    assert row.text("note") == "two\nlines"


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
def test_other_encodings_are_told(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "wide.csv").write_text(f"{HEAD}\n{ROW}\n", encoding=encoding)
    with pytest.raises(UsageError, match=f"begins as text in {encoding[:6].upper()}") as raised:
        read_prices(tmp_path / "wide.csv")
    assert "save it as UTF-8" in raised.value.remedy


def test_old_prices_are_told(tmp_path: Path) -> None:
    (offer,) = read_prices(_file(tmp_path, HEAD, ROW))
    assert stale_note(offer, date(2026, 12, 30)) == ""
    assert "91 days old" in stale_note(offer, date(2026, 12, 31))
    assert "in the future" in stale_note(offer, date(2026, 9, 1))


def test_loads(tmp_path: Path) -> None:
    assert load_of("200/s").mean == 200.0
    assert load_of("12000/min").peak == 200.0
    assert load_of("1e6 / d").mean == pytest.approx(1e6 / 86400)
    assert load_of("3").scaled(2).mean == 6.0
    for text in ("", "fast", "10/week", "-3/s", "0/s", "1/2/s"):
        with pytest.raises(UsageError, match="is no load"):
            load_of(text)
    trace = read_trace(_file(tmp_path, "seconds,rate", "0,10", "60,30", "120,20"))
    assert (trace.mean, trace.peak) == (20.0, 30.0)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("seconds,rate", "0,10", "60,x"), "line 3: rate is 'x'"),
        (("seconds,rate", "0,10", "60,1", "90,1"), "line 4: 30 s after"),
        (("seconds,rate", "0,10", "0,1"), "line 3: 0 s after"),
        (("seconds,rate", "0,0"), "has no calls"),
        (("time,rate", "0,0"), "no column seconds"),
    ],
)
def test_wrong_traces(tmp_path: Path, lines: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        read_trace(_file(tmp_path, *lines))


def test_carbon(tmp_path: Path) -> None:
    path = _file(tmp_path, "region,grams_per_kwh,source,date", "north,8,grid,2026-01-31")
    found = read_carbon(path)["north"]
    assert (found.value, found.unit, found.date) == (8.0, "g/kWh", "2026-01-31")
    with pytest.raises(UsageError, match="has a row before"):
        read_carbon(_file(tmp_path, "region,grams_per_kwh", "north,8", "north,9"))
    with pytest.raises(UsageError, match="grams_per_kwh is 'few'"):
        read_carbon(_file(tmp_path, "region,grams_per_kwh", "north,few"))
