//! A file of settings, and below it lines of `--set`: loaded, or every problem named.

use onrecord::config::{Config, Sources};
use rustix::fs::{MemfdFlags, memfd_create};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;

thread_local! {
    static MEMORY: RefCell<File> = RefCell::new(memfd_create("config", MemfdFlags::empty()).unwrap().into());
}

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (set, file): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with("--set "));
    let mut set: Vec<String> = set.into_iter().map(|line| line["--set ".len()..].to_owned()).collect();
    MEMORY.with_borrow_mut(|memory| {
        memory.set_len(0).unwrap();
        memory.rewind().unwrap();
        memory.write_all(file.join("\n").as_bytes()).unwrap();
        let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
        let mut sources = Sources::new(Some(path.into()), Vec::new());
        sources.environment = Some(HashMap::new());
        sources.set.append(&mut set);
        if let Err(problems) = Config::load(&sources) {
            assert!(!problems.0.is_empty());
            for problem in &problems.0 {
                assert!(!problem.expected.is_empty(), "{problem:?}");
            }
        }
        sources.set.push("server.no_such_key=1".to_owned());
        let Err(problems) = Config::load(&sources) else { panic!("an unknown key was taken") };
        assert!(problems.0.iter().any(|it| it.key.contains("server")), "{problems}");
    });
}
