//! docs/sysctls.md says what the table in `tracer::knowledge` says, word for
//! word: what is between its markers is made from the table.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use tracer::analysis::findings;
use tracer::knowledge::sysctls::{ALL, Bites, Claim, Known, Sysctl, Value, Versions};
use tracer::lab::scenes;
use tracer::render::explain::{bites, moves, reach};

const BEGIN: &str = "<!-- from tracer/src/knowledge -->\n";
const END: &str = "<!-- /from -->\n";

/// What stands between the markers.
fn page() -> String {
    let mut page = String::new();
    page += "| sysctl | sets | default | kernels | a change |\n| --- | --- | --- | --- | --- |\n";
    for sysctl in ALL {
        let _ = writeln!(
            page,
            "| [`{0}`](#{0}) | {1} | {2} | {3} | {4} |",
            sysctl.key(),
            sysctl.sets,
            default(sysctl.default),
            versions(sysctl.versions),
            bites(sysctl.bites)
        );
    }
    for sysctl in ALL {
        section(sysctl, &mut page);
    }
    page
}

fn section(sysctl: &Sysctl, page: &mut String) {
    let _ = write!(
        page,
        "\n### {}\n\n`{}` sets {}.\n\n- Values: {}.\n- Reaches {}.\n",
        sysctl.key(),
        sysctl.name,
        sysctl.sets,
        sysctl.values,
        reach(sysctl.reach)
    );
    for (heading, claims) in [("can", sysctl.can), ("cannot", sysctl.cannot)] {
        for claim in claims {
            let _ = writeln!(page, "- It {heading} {}. {}", claim.says, known(claim));
        }
    }
    if sysctl.bites != Bites::Never {
        let _ = writeln!(page, "- It moves {}.", moves(sysctl));
    }
    if let Some(caution) = sysctl.caution {
        let _ = writeln!(page, "- Beware: {caution}.");
    }
}

fn default(value: Value) -> String {
    match value {
        Value::Always("") => "empty".to_owned(),
        Value::Always(value) => format!("`{value}`"),
        Value::Sized(how) => how.to_owned(),
        Value::None => "-".to_owned(),
    }
}

fn versions(versions: Versions) -> String {
    versions.to_string()
}

fn known(claim: &Claim) -> String {
    match claim.known {
        Known::Held(test) => format!("**M** `{test}`"),
        Known::Measured => "**M**".to_owned(),
        Known::Source => "**S**".to_owned(),
        Known::Documented => "**D**".to_owned(),
    }
}

#[test]
fn the_page_on_sysctls_is_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/sysctls.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text
        .split_once(BEGIN)
        .expect("a marker where the table begins");
    let (found, after) = rest.split_once(END).expect("a marker where the table ends");
    let expected = page();
    if found != expected {
        let corrected = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sysctls.md");
        fs::write(&corrected, format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
        panic!(
            "docs/sysctls.md does not say what the table says: cp {} docs/sysctls.md",
            corrected.display()
        );
    }
}

#[test]
fn the_page_on_findings_has_each_kind_and_scene() {
    let page = include_str!("../../docs/findings.md");
    let rows: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    let ids: Vec<String> = rows
        .iter()
        .filter_map(|row| row.split('`').nth(1).map(str::to_owned))
        .collect();
    let mut known: Vec<&str> = findings::ORDER.to_vec();
    known.sort_unstable();
    let mut told: Vec<&str> = ids.iter().map(String::as_str).collect();
    told.sort_unstable();
    assert_eq!(told, known);
    for scene in scenes::ALL {
        let name = format!("`{}`", scene.name);
        let row = rows.iter().find(|row| row.contains(&name));
        let row = row.unwrap_or_else(|| panic!("docs/findings.md has no scene {}", scene.name));
        // What it provokes is what its row is about.
        assert!(
            scene
                .finding
                .is_none_or(|id| row.starts_with(&format!("| `{id}`"))),
            "{row}"
        );
    }
}
