//! The inputs in `corpus`, once through the functions that libFuzzer calls.

use std::fs;
use std::path::Path;

use tracer_fuzz::TARGETS;

#[test]
fn every_input_of_the_corpus_is_borne() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in TARGETS {
        let folder = corpus.join(name);
        let entries =
            fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut inputs = 0;
        for entry in entries {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            let borne = std::panic::catch_unwind(|| target(&bytes));
            assert!(borne.is_ok(), "{name} panics with {}", path.display());
            inputs += 1;
        }
        assert!(inputs > 0, "{} holds no input", folder.display());
    }
}
