//! `--html` in a real browser: Debian's Chromium, in light and dark, wide and narrow.

use super::*;

/// The page with page.js at its end, as Chromium has it in a frame, which may be narrower than Chromium's windows; what page.js found.
fn look(place: &Place, page: &str, width: u32, dark: bool) -> Value {
    let check = format!("<script data-check>{}</script>", fs::read_to_string(source("page.js")).expect("page.js"));
    assert!(page.contains("</body>"), "{page}");
    let page = page.replace("</body>", &(check + "</body>")).replace('&', "&amp;").replace('"', "&quot;");
    let frame = format!("<iframe style=\"width: {width}px; height: 6000px; border: 0\" srcdoc=\"{page}\"></iframe>");
    let around =
        format!("<!doctype html>\n<meta charset=\"utf-8\">\n<title>test</title>\n<body style=\"margin: 0\">{frame}</body>\n");
    fs::write(place.path("page.html"), around).expect("a file");
    let mut chromium = Command::new("timeout");
    chromium.args(["--kill-after=5", "60", "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]);
    chromium.args([&format!("--user-data-dir={}", place.path("profile")), "--window-size=1300,6000"]);
    chromium.arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)));
    chromium.args(["--dump-dom", &format!("file://{}", place.path("page.html"))]).stdin(Stdio::null());
    let output = chromium.env("HOME", place.path("")).output().expect("timeout, from coreutils");
    let (dom, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "Debian's chromium (tests/run installs it): {}\n{said}", output.status);
    let console: Vec<&str> = said.lines().filter(|line| line.contains("CONSOLE")).collect();
    assert!(console.is_empty(), "{console:?}");
    let found = dom.split("<pre id=\"found\">").nth(1).and_then(|rest| rest.split("</pre>").next()).expect("page.js ran");
    let found = found.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    let found: Value = serde_json::from_str(&found).expect("JSON");
    assert_eq!((found["dark"].as_bool(), found["width"].as_u64()), (Some(dark), Some(width.into())), "{found}");
    found
}

/// The page of such a rehearsal.
fn page(place: &Place, words: &[&str]) -> String {
    let html = place.path("report.html");
    let output = rehearsal(&[&["--html", &html], words].concat()).output().expect("timeout, from coreutils");
    fs::read_to_string(&html).unwrap_or_else(|error| panic!("no page: {error}; {output:?}"))
}

#[track_caller]
fn is_well(place: &Place, page: &str, plots: usize) {
    for (width, dark) in [(1200, false), (1200, true), (420, false), (420, true)] {
        let found = look(place, page, width, dark);
        assert_eq!(found["found"], Value::Array(Vec::new()), "{width} dark: {dark}");
        assert_eq!(found["plots"], plots);
        assert!(found["texts"].as_u64() > Some(30), "{found}");
    }
}

#[test]
fn three_deaths_side_by_side() {
    let place = Place::new();
    let page = page(&place, &["--load-for", "1s", "--propagate", "500ms..2s", "--grace-period", "10s"]);
    is_well(&place, &page, 3);
    assert!(page.contains("kept connections</title>") && page.contains("</span>kept connections</span>"), "{page}");
    assert!(page.contains("cut</th>") && page.contains("last client knows"), "{page}");
}

/// Words of a command line are text, whatever is in them; the end of the grace period is there when it is reached.
#[test]
fn words_stay_words_and_the_end_is_marked() {
    let place = Place::new();
    let deaf = "import signal, http.server as h # <script>alert('&amp;')</script> \"\nsignal.signal(15, signal.SIG_IGN)\n\
                h.ThreadingHTTPServer(('127.0.0.1', 8087), h.SimpleHTTPRequestHandler).serve_forever()";
    let words = ["--url", "http://127.0.0.1:8087/?a=1&amp=2", "--grace-period", "3s", "--load-for", "500ms", "--propagate"];
    let words = [&words[..], &["300ms..1s", "--against", "none,lameduck --delay 1s", "--", PYTHON, "-c", deaf]].concat();
    let page = page(&place, &words);
    is_well(&place, &page, 2);
    // One label names all that are close to each other; on a loaded machine the end comes later than the kill.
    let labels: Vec<&str> = page.split("<text").skip(1).filter_map(|text| text.split("</text>").next()).collect();
    for word in ["KILL", "ended", "grace period ends"] {
        assert!(labels.iter().any(|label| label.contains(word)), "{word}: {labels:?}");
    }
    assert!(page.contains("&lt;script&gt;alert(") && !page.contains("<script"), "{page}");
}

#[test]
fn many_rounds() {
    let place = Place::new();
    let words = ["--rounds", "3", "--chaos", "--seed", "3", "--load-for", "300ms", "--propagate", "300ms..1s", "--pinned", "0"];
    let page = page(&place, &[&words[..], &["--against", "none,lameduck --delay 1s --quiet-period 500ms,tini"]].concat());
    is_well(&place, &page, 3);
    assert_eq!(page.matches("<details>").count(), 3);
    assert!(!page.contains("kept connections"), "{page}");
}

/// Neither green nor red.
#[test]
fn nothing_judged() {
    let place = Place::new();
    let words = ["--chaos", "--seed", "2", "--load-for", "300ms", "--propagate", "300ms", "--against", "none"];
    let page = page(&place, &words);
    is_well(&place, &page, 1);
    assert!(page.contains("<p class=\"verdict nothing-judged\">"), "{page}");
}

/// What page.js is to find is found.
#[test]
fn the_check_finds_faults() {
    let place = Place::new();
    let page = page(&place, &["--against", "none", "--load-for", "300ms", "--propagate", "300ms"]);
    let faults = [
        ("</body>", "<p style=\"width: 3000px\">x</p></body>", "wider than the window: "),
        ("</tbody>", "<tr><td>1</td><td><div style=\"width: 3000px\">far right</div></td></tr></tbody>", "cut off: far right"),
        ("</body>", "<p style=\"color: #888\">pale</p></body>", "contrast "),
        ("</body>", "<img src=\"file:///etc/nothing.png\"></body>", "asks for "),
        ("</body>", "<script>1</script></body>", "has a script"),
        ("</svg>", "<text x=\"950\" y=\"40\">far out at the right</text></svg>", "outside of its plot: far out"),
        (
            "</svg>",
            "<text x=\"300\" y=\"70\">one</text><text x=\"305\" y=\"70\">another</text></svg>",
            "one on the other: one and another",
        ),
    ];
    for (before, after, expected) in faults {
        let found = look_anyway(&place, &page.replacen(before, after, 1));
        let all = found["found"].as_array().expect("a list");
        assert!(all.iter().any(|fault| fault.as_str().is_some_and(|fault| fault.starts_with(expected))), "{expected}: {found}");
    }
}

/// In a wide light window.
fn look_anyway(place: &Place, page: &str) -> Value {
    look(place, page, 1200, false)
}
