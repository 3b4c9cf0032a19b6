"""``pellucid report FOLDER``: one HTML file that shows what a run did, made from its recording.

Read in one walk over the rows, in bounded memory (`grid`, `series`, `tally`), and drawn as inline SVG (`chart_time`,
`chart_distribution`, `chart_breakdown`, `chart_losses`, `picture_svg`), so that the page stays small however long the
run was, prints, and opens on a computer without a network.
"""

from __future__ import annotations

from pellucid.report_page.write import write_report

__all__ = ["write_report"]
