"""The style sheet of pages, light and dark."""

STYLE = """
:root{color-scheme:light dark;--page:#fcfcfb;--card:#fff;--ink:#1b1c1e;--soft:#5c6168;
--line:#e4e5e7;--mark:#1f6fd6;--quiet:#9aa0a8;--fail:#c4571b}
@media (prefers-color-scheme:dark){:root{--page:#16181b;--card:#1e2125;--ink:#eceef0;
--soft:#a6acb4;--line:#33373d;--mark:#6aa9ff;--quiet:#747b84;--fail:#f09557}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:980px;margin:0 auto;padding:24px 16px 48px}
h1{font-size:24px;margin:0 0 16px;overflow-wrap:anywhere}h2{font-size:19px;margin:0;display:inline}
h3{font-size:16px;margin:0}
details,section{background:var(--card);border:1px solid var(--line);border-radius:10px;
padding:16px 20px;margin:0 0 20px}
details section{border:0;padding:0;margin:28px 0 0}
summary{cursor:pointer;overflow-wrap:anywhere}summary span{color:var(--soft);margin-left:12px}
.facts{color:var(--soft);font-size:13px;margin:8px 0 16px;overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(160px,1fr));gap:12px;margin:0}
.tiles div{border:1px solid var(--line);border-radius:8px;padding:10px 14px}
dt{color:var(--soft);font-size:13px}dd{margin:0;font-size:22px;font-weight:600}
small{color:var(--soft)}
figure{margin:28px 0 0;overflow-x:auto}section>figure{margin:0}
figcaption p{margin:2px 0 8px;color:var(--soft);font-size:13px;
max-width:75ch}
svg{width:100%;min-width:620px;height:auto;display:block}
svg text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:var(--ink)}
svg .label{text-anchor:end}svg .tick,svg .axis{text-anchor:middle;fill:var(--soft)}
svg .value{fill:var(--soft)}
.grid{stroke:var(--line)}.zero{stroke:var(--soft)}.hit{fill:transparent}
g:hover>.hit{fill:var(--line);fill-opacity:.45}
.whisker,.way{stroke:var(--mark);stroke-width:2;stroke-opacity:.55}
.dot{fill:var(--mark);stroke:var(--card);stroke-width:1}
.hollow{fill:var(--card);stroke:var(--quiet);stroke-width:1.6}
.bar{fill:var(--mark);fill-opacity:.85}.idle{fill:var(--quiet);fill-opacity:.4}
.chosen{fill:var(--fail);stroke:var(--card)}
.limit{stroke:var(--fail);stroke-width:1.5;stroke-dasharray:6 4}
.steps{fill:none;stroke:var(--mark);stroke-width:2}.step{fill:var(--mark)}
.scroll{overflow-x:auto;margin-top:8px}
table{border-collapse:collapse;font-size:13px;width:100%}
th{text-align:left;color:var(--soft);font-weight:500}
th,td{padding:4px 14px 4px 0;border-bottom:1px solid var(--line);vertical-align:top}
td{font-variant-numeric:tabular-nums;white-space:nowrap}
td:first-child,td:last-child{white-space:normal;overflow-wrap:anywhere;min-width:14em}
td:first-child{min-width:22em}
footer{color:var(--soft);font-size:13px}
"""
