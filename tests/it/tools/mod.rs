//! What the server records, in the tools that people read it with: the table of `tests/README.md`.

mod browsers;
mod films;
mod judges;
mod scene;
mod sound_card;
mod verdict;

use crate::support::browser::Browser;
use crate::support::server::Server;
use crate::support::web::Site;
use films::Film;
use futures_util::FutureExt;
use judges::TOOLS;
use sound_card::SoundCard;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use verdict::Seen;

const BROWSERS: [&str; 2] = ["Chromium", "Firefox"];

/// What a tool makes of a film.
enum Cell {
    /// All is right; sound and picture are apart by so many milliseconds at most.
    Right(Option<f64>),
    /// The tool can't read it, ours or not.
    Lacks,
    /// The tool seeks wrong in it, and as wrong when another program has written the file.
    Seeks,
    Wrong(Vec<String>),
}

impl Cell {
    fn word(&self) -> &'static str {
        match self {
            Self::Right(_) => "ok",
            Self::Lacks => "–",
            Self::Seeks => "seeks †",
            Self::Wrong(_) => "WRONG",
        }
    }
}

/// By film and tool.
type Table = BTreeMap<(usize, usize), Cell>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_recording_is_right_in_every_tool() {
    let began = Instant::now();
    let venv = tokio::task::spawn_blocking(judges::install).await.unwrap();
    let site = Site::start().await;
    let settings = ["hooks.on_record=", &format!("server.cors_origins=[\"{}\"]", site.origin)];
    let server = Server::start(&settings);
    // Encoded first: Chromium's pictures are to come in time.
    let (round, growing) = (scene::round(), scene::growing());
    let (mut films, others) =
        tokio::join!(browsers::by_chromium(&server), films::by_str0m(&server, round, growing));
    films.extend(others);
    println!("published after {:.0?}", began.elapsed());
    films.push(films::hour(&server).await);
    let (server, repaired) = films::repaired(server, &settings).await;
    films.push(repaired);

    println!("recorded after {:.0?}", began.elapsed());
    let truths = in_pairs(films.len(), |film| {
        judges::look(&venv, "reference", &films[film]).unwrap_or_else(|error| panic!("{error}"))
    });
    let cells = in_pairs(films.len() * TOOLS.len(), |n| {
        let (film, tool) = (n / TOOLS.len(), n % TOOLS.len());
        let seen = judges::look(&venv, TOOLS[tool].1, &films[film]);
        ((film, tool), cell(&venv, TOOLS[tool].1, &films[film], &truths[film], seen))
    });
    let mut table: Table = cells.into_iter().collect();
    println!("looked at by tools after {:.0?}", began.elapsed());
    let (card, mut names) = (SoundCard::start(), TOOLS.map(|(name, _)| name).to_vec());
    for name in BROWSERS {
        // A browser that fails is wrong about all films, and the others are printed nevertheless.
        let looks = AssertUnwindSafe(look(name, &card, &site, &server, &films, &truths)).catch_unwind().await;
        let mut looks = looks.unwrap_or_default().into_iter();
        for (film, truth) in truths.iter().enumerate() {
            let seen = looks.next().unwrap_or_else(|| Err("it failed".to_owned()));
            table.insert((film, names.len()), cell(&venv, name, &films[film], truth, seen));
        }
        names.push(name);
    }
    print_and_judge(&names, &films, &table);
}

/// What a browser makes of all films.
async fn look(
    name: &str,
    card: &SoundCard,
    site: &Site,
    server: &Server,
    films: &[Film],
    truths: &[Seen],
) -> Vec<Result<Seen, String>> {
    let browser = match name {
        "Firefox" => Browser::firefox_with(&card.environment()).await,
        _ => Browser::chromium(&[], &card.environment()).await,
    };
    browsers::look(&browser, site, server, films, truths).await
}

fn cell(venv: &Path, tool: &str, film: &Film, truth: &Seen, seen: Result<Seen, String>) -> Cell {
    let seen = match seen {
        Ok(seen) => seen,
        Err(error) => return Cell::Wrong(vec![error]),
    };
    if let Some(why) = seen.lacks {
        let has_track = if tool == "wav" { film.has_sound() } else { film.pictures().is_some() };
        let is_browser = BROWSERS.contains(&tool);
        if !is_browser && (!has_track || judges::lacks_everywhere(venv, tool, film.codec())) {
            return Cell::Lacks;
        }
        return Cell::Wrong(vec![why]);
    }
    let mut faults = verdict::faults_of_file(film, truth);
    faults.extend(verdict::faults(film, truth, &seen));
    let seeks = verdict::missed_seeks(truth, &seen);
    if !seeks.is_empty() && judges::seeks_so_everywhere(venv, tool, film, &seen) {
        if faults.is_empty() {
            return Cell::Seeks;
        }
    } else {
        faults.extend(seeks);
    }
    if faults.is_empty() { Cell::Right(verdict::worst(film, truth, &seen)) } else { Cell::Wrong(faults) }
}

/// What each of so many pieces of work gives, in order; two are done at a time.
fn in_pairs<T: Send>(pieces: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let worker = || {
        loop {
            let piece = next.fetch_add(1, Ordering::Relaxed);
            if piece >= pieces {
                return;
            }
            let result = work(piece);
            done.lock().unwrap().insert(piece, result);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(worker);
        worker();
    });
    done.into_inner().unwrap().into_values().collect()
}

fn print_and_judge(names: &[&str], films: &[Film], table: &Table) {
    let mut text = format!("| file | {} |\n| --- |{}\n", names.join(" | "), " --- |".repeat(names.len()));
    let (mut wrong, mut measured) = (Vec::new(), Vec::new());
    for (row, film) in films.iter().enumerate() {
        let cells: Vec<&Cell> = (0..names.len()).map(|tool| &table[&(row, tool)]).collect();
        let words: Vec<&str> = cells.iter().map(|cell| cell.word()).collect();
        text += &format!("| {} | {} |\n", film.name, words.join(" | "));
        for (tool, cell) in names.iter().zip(cells) {
            match cell {
                Cell::Right(Some(ms)) => measured.push(format!("{}, {tool}: {ms:+.0} ms", film.name)),
                Cell::Wrong(faults) => wrong.push(format!("{}, {tool}: {}", film.name, faults.join("; "))),
                _ => {}
            }
        }
    }
    println!("{text}\nbeep behind flash at worst: {}", measured.join("; "));
    assert!(wrong.is_empty(), "{} cells are wrong:\n{}", wrong.len(), wrong.join("\n"));
    let readme = include_str!("../../README.md");
    assert!(readme.contains(&text), "tests/README.md has another table");
}
