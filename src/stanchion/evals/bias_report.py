"""A bias comparison for people: one self-contained page."""

from __future__ import annotations

from stanchion.evals.bias import BiasReport

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Bias comparison: {{ r.outcome.value | upper }}</title>
<style>
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}
table{border-collapse:collapse;width:100%;margin:.5rem 0 1.5rem}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #d8dee4}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.pass{color:#1a7f37}.fail{color:#b3261e}.inconclusive,.invalid{color:#8a5a00}
</style></head><body>
<h1>Bias comparison: <span class="{{ r.outcome.value }}">{{ r.outcome.value | upper }}</span></h1>
<p>Target {{ r.target_id }}; {{ r.asked }} requests, {{ r.errors }} errors;
limit {{ '%.1f' % (100 * r.limit) }} %,
level {{ '%.1f' % (100 * r.alpha) }} % over all axes (Holm); plan {{ r.plan_digest }}.</p>
{% for a in r.axes %}
<h2>{{ a.axis }}, {{ a.outcome }}:
<span class="{{ a.verdict.value }}">{{ a.verdict.value | upper }}</span></h2>
<p>{{ a.reason }}. {{ a.cells }} cells, {{ a.unjudged }} of {{ a.asked }} answers without an outcome,
p = {{ '%.3g' % a.p_value }} (adjusted {{ '%.3g' % a.adjusted_p }}). Found four times in five:
differences of {{ '%.1f' % (100 * a.detectable) }} points or more.</p>
<table><tr><th>group</th><th class="n">mean</th><th class="n">less the others, points</th>
<th class="n">interval</th></tr>
{% for e in a.effects %}<tr><td>{{ e.group }}</td><td class="n">{{ '%.3f' % e.mean }}</td>
<td class="n">{{ '%+.1f' % (100 * e.difference) }}</td>
<td class="n">{{ '%+.1f' % (100 * e.low) }} to {{ '%+.1f' % (100 * e.high) }}</td></tr>
{% endfor %}</table>
{% endfor %}
<p>Intervals hold for all groups of all axes at once. A pass says that no group was treated differently
beyond the limit in these requests; it says nothing about others.</p>
</body></html>
"""


def bias_page(report: BiasReport) -> str:
    """The report as HTML; every text of it is escaped."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_PAGE).render(r=report)
