"""The page of a fit says what the fit says, loads nothing from elsewhere, and cannot be taken over by a file's name."""

import dataclasses
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from sindyrl import fit_plot
from sindyrl.fit_report import write_fit_report
from sindyrl.fitting import FitSettings, fit_recording
from sindyrl.plot import to_svg
from sindyrl.trajectory import Dataset, Trajectory

HOSTILE = '<script>alert("1")</script>.csv'
VOID = {"meta", "br", "img", "link", "hr"}


def oscillator(steps=300, noise=0.001, inputs=("u",)):
    rng, dt = np.random.default_rng(0), 0.05
    a, b = np.array([[0.0, 1.0], [-4.0, -0.3]]), np.array([0.0, 1.5])
    u = rng.uniform(-1, 1, (steps, 1)) if inputs else np.zeros((steps, 0))
    x = [np.array([1.0, 0.0])]
    left, right = np.eye(2) - dt / 2 * a, np.eye(2) + dt / 2 * a
    for held in u:
        x.append(np.linalg.solve(left, right @ x[-1] + dt * b * held.sum()))
    x = np.array(x) + noise * rng.normal(size=(steps + 1, 2))
    return Dataset((Trajectory.uniform(x, u, dt=dt, states=("x", "v"), inputs=inputs),))


@pytest.fixture(scope="module")
def result():
    return fit_recording(oscillator(), FitSettings(), notes=["Read <this> first."])


@pytest.fixture(scope="module")
def page(result, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    settings = [("states", "x, v"), ("evil", HOSTILE)]
    write_fit_report(result, path, title=HOSTILE, source=HOSTILE, settings=settings)
    return path.read_text(encoding="utf-8")


class Balance(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(page):
    parser = Balance()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def test_every_tag_is_closed_and_nothing_is_loaded(page):
    tags = parsed(page).seen
    assert not {tag for tag, _ in tags} & {"script", "link", "img", "iframe", "object"}
    for _, attributes in tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in ("src", "href") or value.startswith("#")
    assert "@import" not in page
    assert HOSTILE not in page
    assert "Read &lt;this&gt; first." in page


def test_identifiers_are_all_different(page):
    found = [attributes["id"] for _, attributes in parsed(page).seen if "id" in attributes]
    assert len(found) == len(set(found))


def table_after(page, heading):
    """The texts of the cells, row by row, of the table with this heading."""
    rows = re.findall(r"<tr>(.*?)</tr>", page.partition(heading)[2].partition("</table>")[0], flags=re.DOTALL)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]
    return [[re.sub(r"<[^>]*>", "", cell).replace("\u2212", "-") for cell in row] for row in cells if row]


def test_the_page_has_every_term_with_its_error_and_the_figures_of_merit(page, result):
    for row, term in zip(table_after(page, "Selected in resamples"), result.terms(), strict=True):
        _, name, coef, error, interval, inclusion = row
        assert name.replace("\u2009·\u2009", "*") == term["term"]
        assert float(coef) == pytest.approx(term["coef"], abs=0.1 * term["standard_error"])
        assert float(error) == pytest.approx(term["standard_error"], rel=0.05)
        ends = [float(end) for end in interval.split(" to ")]
        assert ends == pytest.approx([term["low"], term["high"]], abs=0.1 * term["standard_error"])
        assert inclusion == f"{100 * term['inclusion']:.0f} %"
    for value in result.fit_percent().values():
        assert f"{value:.1f} %" in page
    for name in ("rollout", "residuals", "inclusion", "paths"):
        assert f'id="figure-{name}"' in page
    assert "95 % interval" in page
    assert "Dense gain" in page
    shares = [row[2] for row in table_after(page, "Measurements in it")]
    assert shares == [f"{100 * share:.0f} %" for share in result.coverage.share]
    assert "No dead time was found" in page
    for steps in result.horizons.horizons:
        assert f'<td class="n">{steps}</td>' in page


def test_the_style_is_the_one_of_the_other_report(page):
    from pathlib import Path

    import sindyrl.page

    style = (Path(sindyrl.page.__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
    assert style.strip() in page
    assert "prefers-color-scheme: dark" in page


def test_systems_without_inputs_have_no_section_on_them(tmp_path):
    result = fit_recording(oscillator(inputs=()), FitSettings(degree=1))
    text = write_fit_report(result, tmp_path / "r.html", title="t").read_text(encoding="utf-8")
    parsed(text)
    assert "Dense gain" not in text
    assert "To get this fit again" not in text


def test_a_diverged_roll_out_is_said_and_not_averaged(result, tmp_path):
    from sindyrl.protocols import Outcome

    lost = dataclasses.replace(result.rollouts[0], outcome=Outcome.diverged, valid=7)
    broken = dataclasses.replace(result, rollouts=[lost])
    assert set(broken.fit_percent().values()) == {None}
    text = write_fit_report(broken, tmp_path / "r.html", title="t").read_text(encoding="utf-8")
    parsed(text)
    assert "not available" in text
    assert '<b class="missing">diverged</b>' in text


def test_figures_are_valid_svg_of_the_same_bytes_each_time(result):
    rates = result.model.rates
    selected = [[rates.library.names[j] for j in np.flatnonzero(row)] for row in rates.support]

    def drawn():
        return [
            to_svg(fit_plot.data_against_model(result.rollouts, result.model.states), "a"),
            to_svg(fit_plot.residuals(result.residual, result.whiteness, rates.targets, 0.05), "b"),
            to_svg(fit_plot.residuals(result.residual, None, rates.targets, 0.05), "c"),
            to_svg(fit_plot.inclusion(result.fit.inclusion, rates.support, rates.library.names, rates.targets), "d"),
            to_svg(fit_plot.coefficient_paths(result.path, rates.targets, selected), "e"),
        ]

    first, second = drawn(), drawn()
    assert first == second
    for text in first:
        ElementTree.fromstring(text)


def test_paths_begin_at_the_dense_fit_and_thin_out(result):
    path = result.path
    counts = (path.shares != 0).sum(axis=(1, 2))
    assert counts[0] > counts[-1] == 0
    # A surviving coefficient is never below its threshold.
    for threshold, shares in zip(path.thresholds, path.shares, strict=True):
        assert (np.abs(shares[shares != 0]) >= threshold).all()
    z, library = result.fitted.pairs(), result.model.rates.library
    theta, y = library.features(np.column_stack([(z.x + z.x_next) / 2, z.u])), (z.x_next - z.x) / 0.05
    size, rms_y = np.sqrt(np.mean(theta**2, axis=0)), np.sqrt(np.mean(y**2, axis=0))
    dense = np.linalg.lstsq(theta, y, rcond=None)[0].T
    np.testing.assert_allclose(path.shares[0], dense * size / rms_y[:, None], atol=2e-3)  # but for what is tiny
    j = path.names.index("x")
    middle = int(np.searchsorted(path.thresholds, 0.05))
    assert path.shares[middle, 1, j] * rms_y[1] / size[j] == pytest.approx(-4.0, rel=0.02)
