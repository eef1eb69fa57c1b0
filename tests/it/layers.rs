//! Arrows between modules point down: the crates of the workspace by their manifests, the modules of `src/` by their `crate::` paths.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules of `src/`, lowest layer first. A module sees those of lower layers and itself, and none beside it.
const LAYERS: &[&[&str]] = &[
    &["crash", "error", "time", "settings"],
    &["state"],
    &["warehouse"],
    // What is pushed and what is stored: neither knows the other.
    &["history", "stream"],
    &["op"],
    &["registry"],
    &["connect"],
    &["serve"],
    &["engine"],
    &["verify", "wire"],
    &["cli"],
];

/// Arrows that point up and wait for a better place. Each must still be there: one that is gone leaves this list.
/// FIXME: `serve::lookup` is a part of the engine in the wrong folder.
const KNOWN: &[(&str, &str)] = &[("serve", "engine")];

/// Which of our crates a crate may name.
const CRATES: &[(&str, &[&str])] =
    &[("udfs", &[]), ("flight", &[]), ("sql", &["asof-udfs"]), (".", &["asof-udfs", "asof-flight", "asof-sql"])];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for entry in entries {
        let path = entry.expect("the entry of a folder can be read").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
    into.sort();
}

/// The code of a file: without its comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// The first name of every `crate::` path; `None` for a group in braces, which hides them.
fn named(code: &str) -> Vec<Option<&str>> {
    let paths =
        code.match_indices("crate::").filter(|(at, _)| !code[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$'));
    paths
        .map(|(at, path)| {
            let rest = &code[at + path.len()..];
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            Some(&rest[..end]).filter(|name| !name.is_empty())
        })
        .collect()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

#[test]
fn modules_see_only_lower_layers() {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    assert!(files.len() > 50, "only {} files under src/", files.len());
    let mut wrong = Vec::new();
    let mut known = Vec::new();
    for file in &files {
        let inside = file.strip_prefix(root().join("src")).expect("files of src/ are in it");
        let module = inside.iter().next().and_then(|m| m.to_str()).expect("a path has a first part").trim_end_matches(".rs");
        if matches!(module, "lib" | "main") {
            continue;
        }
        let Some(own) = layer(module) else {
            wrong.push(format!("{}: module \"{module}\" has no layer", inside.display()));
            continue;
        };
        for name in named(&code(file)) {
            let Some(name) = name else {
                wrong.push(format!("{}: crate::{{...}} hides the modules it names; one `use` a module", inside.display()));
                continue;
            };
            match layer(name) {
                _ if name == module => {}
                Some(other) if other < own => {}
                Some(_) if KNOWN.contains(&(module, name)) => known.push((module.to_owned(), name.to_owned())),
                Some(_) => wrong.push(format!("{}: {module} sees {name}, which is not below it", inside.display())),
                None => wrong.push(format!("{}: crate::{name} is no module with a layer", inside.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (from, to) in KNOWN {
        assert!(known.iter().any(|(f, t)| f == from && t == to), "{from} does not see {to} any more: it leaves the list of what is known");
    }
}

/// The two modes of an operator lie side by side and never see each other; what both mean is above them, in the operator's own file.
#[test]
fn the_two_modes_of_an_operator_do_not_see_each_other() {
    let mut files = Vec::new();
    sources(&root().join("src/op"), &mut files);
    let mut seen = [0, 0];
    for file in &files {
        let parts: Vec<&str> = file.iter().filter_map(|p| p.to_str()).map(|p| p.trim_end_matches(".rs")).collect();
        let code = code(file);
        for (i, (mode, other)) in [("batch", "stream"), ("stream", "batch")].into_iter().enumerate() {
            if !parts.contains(&mode) {
                continue;
            }
            seen[i] += 1;
            for path in ["super", "relation", "window", "asof_join"] {
                let path = format!("{path}::{other}::");
                assert!(!code.contains(&path), "{}: {mode} sees {path}", file.display());
            }
        }
    }
    assert!(seen.iter().all(|n| *n >= 2), "the operators have files of both modes: {seen:?}");
}

#[test]
fn crates_see_only_lower_crates() {
    for (folder, allowed) in CRATES {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("the manifest of a member");
        let dependencies = manifest.split("\n[").filter(|section| {
            section.split(']').next().is_some_and(|name| name.ends_with("dependencies") && !name.starts_with("workspace"))
        });
        for line in dependencies.flat_map(str::lines).filter(|line| line.starts_with("asof-")) {
            let name = line.split(|c: char| !(c.is_alphanumeric() || c == '-')).next().unwrap_or("");
            assert!(allowed.contains(&name), "crate {folder} depends on {name}");
        }
    }
}

#[test]
fn paths_are_read() {
    let code = "use crate::op::x; pub(in crate::a) fn f() { $crate::b(); crate::{c, d}; other_crate::e() }";
    assert_eq!(named(code), [Some("op"), Some("a"), None]);
}
