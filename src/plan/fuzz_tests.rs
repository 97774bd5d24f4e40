//! Compose text and env files that nobody wrote: whatever they say, reading them ends, and soon, without a panic.

use super::CompleteService;
use super::tests::PlanFiles;
use crate::input::compose::dotenv::{self, Format};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// How long one input may take. Inputs are a few kilobytes; this debug build needs about a millisecond for them.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// One environment, so that a fixed address may stand in the Compose file.
const HOME: &str = "[network]\nsubnet = '192.168.1.0/24'\ngateway = '192.168.1.1'\n[shim]\naddress = '192.168.1.254'\n[hosts.pi]\naddress = '192.168.1.204'\nprimary = true\n[env.prod]\nrange = '192.168.1.192-192.168.1.223'\n";

const ALL: &str = include_str!("../../tests/compose/all.yml");
const EXAMPLE: &str = include_str!("../../tests/home/docker-compose.application.yml");
const COMMON: &str = include_str!("../../tests/home/common.yml");
const VARIABLES: &str = include_str!("../../tests/home/env/.env.prod");

/// Files that use everything; inputs are made of pieces of them.
const SEEDS: [&str; 3] = [
    ALL,
    EXAMPLE,
    "A=1\nexport B = 'x $A' # c\nC=\"y\\n${A:-${B}}\"\nD\nE: f\nexport G=\"over\nlines\"\n",
];

const PIECES: [&str; 44] = [
    "${",
    "}",
    "$$",
    "$A",
    ":-",
    ":?",
    "- ",
    ": ",
    "\n",
    "  ",
    "\t",
    "{",
    "[",
    "]",
    "'",
    "\"",
    "&a ",
    "*a",
    "<<: *a",
    "!reset ",
    "!override ",
    "!!str ",
    "|\n",
    ">-\n",
    "null",
    "true",
    "0777",
    "1e999",
    "-1",
    "~",
    "\u{feff}",
    "ä",
    "\r\n",
    "# ",
    "? ",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "extends: ",
    "include: [compose.yml]\n",
    "\0",
    "99999999999999999999",
    "services:\n",
    "  a:\n    image: b\n",
];

fn edit() -> impl Strategy<Value = (u8, f64, f64, usize, usize)> {
    (
        0..5_u8,
        0.0..1.0_f64,
        0.0..1.0_f64,
        0..PIECES.len(),
        0..SEEDS.len(),
    )
}

fn input() -> impl Strategy<Value = String> {
    let edits = proptest::collection::vec(edit(), 0..12);
    (0..SEEDS.len(), edits).prop_map(|(seed, edits)| {
        let mut text = SEEDS.get(seed).copied().unwrap_or_default().to_owned();
        for (kind, from, length, piece, other) in edits {
            apply(&mut text, kind, (from, length), piece, other);
        }
        text
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a place in a text of some kilobytes"
)]
fn apply(text: &mut String, kind: u8, (from, length): (f64, f64), piece: usize, other: usize) {
    let place = |text: &str, at: f64| {
        let mut place = (text.len() as f64 * at) as usize;
        while !text.is_char_boundary(place) {
            place -= 1;
        }
        place
    };
    let start = place(text, from);
    let end = place(text, (from + length * 0.1).min(1.0));
    let part = text.get(start..end).unwrap_or_default().to_owned();
    match kind {
        0 => text.replace_range(start..end, ""),
        1 => text.insert_str(start, &part.repeat(3)),
        2 => text.insert_str(start, PIECES.get(piece).copied().unwrap_or_default()),
        3 => text.replace_range(start..end, PIECES.get(piece).copied().unwrap_or_default()),
        _ => {
            let seed = SEEDS.get(other).copied().unwrap_or_default();
            let from = place(seed, from);
            let to = place(
                seed,
                (from as f64 / seed.len() as f64 + length * 0.2).min(1.0),
            );
            text.insert_str(start, seed.get(from..to.max(from)).unwrap_or_default());
        }
    }
}

/// Reads one input in every way in which homelab reads files, and as a Compose file that extends and includes itself;
/// whether it is a good one.
fn read(text: &str) -> bool {
    let _ = dotenv::parse(text, Format::Compose, &|_| None);
    let _ = dotenv::parse(text, Format::Raw, &|_| None);
    let mut files = PlanFiles::new(HOME)
        .compose(text)
        .env_files(&[("prod", VARIABLES)])
        .file("/home/common.yml", COMMON);
    for name in "ABCDEFGHIJKLMNOPQRSTUVWXYZ".chars().map(String::from) {
        files = files.variable(&name, &name);
    }
    let (result, sources) = files.read();
    match result {
        Ok((plan, _)) => {
            for service in plan.envs.iter().flat_map(|env| &env.services) {
                let service = CompleteService::without_files(service.clone());
                assert!(service.fingerprint().starts_with("v1;image="));
            }
            true
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            for problem in problems {
                let (line, column) = sources.position(&problem.span());
                assert!(line > 0 && column > 0);
                assert!(!problem.what.is_empty());
            }
            false
        }
    }
}

/// How many inputs are read at least: about one in twelve makes a plan.
const INPUTS: usize = 192;

/// Reads inputs for as long as it is told: how many made a plan, and how many were refused.
fn fuzz(time: Duration) -> (usize, usize) {
    let begun = Instant::now();
    let config = Config {
        cases: 64,
        failure_persistence: None,
        ..Config::default()
    };
    let (good, refused) = (Cell::new(0), Cell::new(0));
    while begun.elapsed() < time || good.get() + refused.get() < INPUTS {
        // A runner makes its cases once.
        let mut runner = TestRunner::new(config.clone());
        let result = runner.run(&input(), |text| {
            let begun = Instant::now();
            let outcome = if read(&text) { &good } else { &refused };
            outcome.set(outcome.get() + 1);
            prop_assert!(
                begun.elapsed() < READ_LIMIT,
                "it took {:?}",
                begun.elapsed()
            );
            Ok(())
        });
        if let Err(error) = result {
            unreachable!("{error}");
        }
    }
    (good.get(), refused.get())
}

/// Files that are all refused at once, or all good, would show nothing.
fn assert_both(outcomes: (usize, usize)) {
    let (good, refused) = outcomes;
    assert!(
        good > 0 && refused > 0,
        "{good} made a plan, {refused} were refused"
    );
}

#[test]
fn seeds_are_read_whole() {
    assert!(read(ALL) && read(EXAMPLE));
    assert_both(fuzz(Duration::from_secs(1)));
}

#[test]
#[ignore = "takes a minute: cargo test fuzz -- --ignored"]
fn a_minute_of_files_that_nobody_wrote() {
    assert_both(fuzz(Duration::from_secs(60)));
}
