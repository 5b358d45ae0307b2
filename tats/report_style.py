"""Looks of the report page: its frame, its style sheet and the few lines that play videos only while they are
seen, and the sound of one of them where it is asked for."""

FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
{lead}
{menu}
<p><button type="button" id="play" hidden>Pause all videos</button></p>
</header>
<main>
{body}
</main>
<script>
{script}</script>
</body>
</html>
"""

STYLE = """:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1d232b; --soft: #5a6472; --rule: #d8dde4; --panel: #f4f6f8; --link: #1558b0;
  --c0: #1769c9; --c1: #c9501c; --c2: #1f8a4c; --c3: #8a3fb8; --c4: #a17a00; --c5: #b3246b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171c; --ink: #e4e8ee; --soft: #a2acb9; --rule: #353c47; --panel: #1d2229; --link: #8ab8ff;
    --c0: #6fb1ff; --c1: #ff9a66; --c2: #63d495; --c3: #cf97f5; --c4: #e6c04d; --c5: #ff86bd;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 1rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 1rem 0 .5rem; }
h2 { font-size: 1.35rem; margin: 2.75rem 0 .5rem; padding-top: .75rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 1.25rem 0 .4rem; }
p { margin: .4rem 0 .8rem; max-width: 46rem; }
a { color: var(--link); }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: .6rem 0; padding: 0; }
button { font: inherit; color: inherit; background: var(--panel); border: 1px solid var(--rule); border-radius: 6px;
  padding: .25rem .8rem; cursor: pointer; }
figure { margin: 0; }
figcaption, caption { color: var(--soft); font-size: .82rem; line-height: 1.35; }
.wide, .curve { margin: .8rem 0 1.4rem; }
.curve { display: inline-block; vertical-align: top; width: min(100%, 33rem); margin-right: .5rem; }
.curve > figcaption { color: inherit; font-size: 1rem; font-weight: 500; margin-bottom: .3rem; }
.clips { display: flex; flex-wrap: wrap; gap: 1rem .9rem; align-items: flex-start; margin: .4rem 0 1.2rem; }
.clip { max-width: 100%; }
.clip figcaption { margin-top: .15rem; }
.listen { margin-top: .3rem; padding: .05rem .6rem; font-size: .82rem; }
.listen[aria-pressed="true"] { background: var(--link); border-color: var(--link); color: var(--paper); }
.heads { display: flex; font-size: .78rem; line-height: 1.3; color: var(--soft); margin-bottom: .15rem; }
.heads span { flex: 1; }
video { display: block; max-width: 100%; height: auto; background: #000; border-radius: 3px;
  image-rendering: pixelated; }
.scroll { overflow-x: auto; margin: .8rem 0 1.4rem; }
table { border-collapse: collapse; font-size: .9rem; }
caption { text-align: left; padding: 0 0 .4rem; }
th, td { padding: .32rem .9rem .32rem 0; border-bottom: 1px solid var(--rule); text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid var(--rule); vertical-align: bottom; }
tbody th { font-weight: 500; min-width: 8.5rem; }
td small { display: block; color: var(--soft); font-size: .72rem; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
pre { background: var(--panel); border: 1px solid var(--rule); border-radius: 6px; padding: .7rem .9rem;
  margin: .3rem 0; overflow: auto; max-height: 32rem;
  font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.plot { width: 100%; height: auto; display: block; }
.plot text { fill: var(--soft); font-size: 12px; text-anchor: middle; }
.plot .end { text-anchor: end; }
.plot .name { fill: var(--ink); }
.grid { stroke: var(--rule); fill: none; }
.axis { stroke: var(--soft); fill: none; }
path.line0, path.line1, path.line2, path.line3, path.line4, path.line5 { fill: none; stroke-width: 2;
  stroke-linejoin: round; }
path.line0 { stroke: var(--c0); } path.line1 { stroke: var(--c1); stroke-dasharray: 7 3; }
path.line2 { stroke: var(--c2); stroke-dasharray: 2 3; } path.line3 { stroke: var(--c3); stroke-dasharray: 9 3 2 3; }
path.line4 { stroke: var(--c4); stroke-dasharray: 4 2; } path.line5 { stroke: var(--c5); stroke-dasharray: 1 2; }
circle.line0 { fill: var(--c0); } circle.line1 { fill: var(--c1); } circle.line2 { fill: var(--c2); }
circle.line3 { fill: var(--c3); } circle.line4 { fill: var(--c4); } circle.line5 { fill: var(--c5); }
.now { stroke: var(--ink); stroke-width: 1.5; opacity: .6; fill: none; }
.watch > div { display: flex; flex-wrap: wrap; gap: .6rem 1.2rem; align-items: flex-start; margin: .2rem 0 1rem; }
.watch > div > div { flex: 1 1 20rem; display: flex; flex-wrap: wrap; gap: .3rem .8rem; }
.watch .curve { flex: 1 1 17rem; max-width: 27rem; margin: 0; }
.watch .curve > figcaption { font-size: .85rem; margin: 0; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .15rem 1.2rem; margin: .2rem 0; padding: 0;
  font-size: .85rem; }
.legend b { font-weight: 500; color: var(--soft); font-variant-numeric: tabular-nums; }
.key { width: 30px; height: 8px; margin-right: .4rem; vertical-align: middle; }
"""

SCRIPT = """(function () {
  const videos = Array.from(document.querySelectorAll("video"));
  const button = document.getElementById("play");
  if (!videos.length || !("IntersectionObserver" in window)) return;
  const seen = new Set();
  let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  const show = () => {
    for (const video of videos) {
      if (playing && seen.has(video)) video.play().catch(() => {}); else video.pause();
    }
    button.textContent = playing ? "Pause all videos" : "Play all videos";
  };
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) seen.add(entry.target); else seen.delete(entry.target);
    }
    show();
  });
  for (const video of videos) {
    const bytes = Uint8Array.from(atob(video.src.split(",")[1]), (letter) => letter.charCodeAt(0));
    video.src = URL.createObjectURL(new Blob([bytes], { type: "video/mp4" }));  // some browsers play no data: videos
    video.controls = false;  // they would hide a small picture, and come when they are asked for
    video.tabIndex = 0;
    for (const name of ["pointerenter", "focus", "click"]) video.addEventListener(name, () => video.controls = true);
    for (const name of ["pointerleave", "blur"]) video.addEventListener(name, () => video.controls = false);
    watcher.observe(video);
  }
  const listeners = Array.from(document.querySelectorAll(".listen"));
  for (const listener of listeners) {
    const own = listener.closest("figure").querySelector("video");
    listener.hidden = false;
    listener.addEventListener("click", () => {
      const on = own.muted;
      for (const other of listeners) {  // one is heard at a time
        other.closest("figure").querySelector("video").muted = true;
        other.setAttribute("aria-pressed", "false");
      }
      own.muted = !on;
      listener.setAttribute("aria-pressed", String(on));
      if (on) { own.currentTime = 0; own.play().catch(() => {}); }
    });
  }
  for (const part of document.querySelectorAll(".watch")) {
    const video = part.querySelector("video");
    const lines = Array.from(part.querySelectorAll(".now"));
    if (video) video.addEventListener("timeupdate", () => {
      const frame = video.duration ? video.currentTime / video.duration * part.dataset.frames : 0;
      for (const line of lines) {
        const { from, to, width } = line.dataset;
        const share = Math.min(1, Math.max(0, (frame - from) / (to - from)));
        line.setAttribute("transform", `translate(${share * width} 0)`);
      }
    });
  }
  button.hidden = false;
  button.addEventListener("click", () => { playing = !playing; show(); });
})();
"""
