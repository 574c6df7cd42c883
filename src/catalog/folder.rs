//! The folder of recordings: where each file and its manifest are, and how a manifest is read and replaced there.

use crate::catalog::manifest::{Manifest, RecordingState};
use crate::catalog::names::{PART, QUARANTINE, is_plain, is_temporary};
use crate::disk::space::Space;
use crate::disk::{move_away, replace, sync_dir};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

/// A folder with recordings and the manifests beside them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Folder {
    dir: Arc<Path>,
    mode: u32,
    space: Arc<Space>,
}

impl Folder {
    pub(crate) fn new(dir: &Path, mode: u32, space: Arc<Space>) -> Self {
        Self { dir: dir.into(), mode, space }
    }

    /// Where a recording's file is.
    pub(crate) fn path(&self, manifest: &Manifest) -> PathBuf {
        path(&self.dir, manifest)
    }

    /// Where its manifest is.
    pub(crate) fn manifest_path(&self, manifest: &Manifest) -> PathBuf {
        self.dir.join(manifest_name(&manifest.file))
    }

    /// Notes whether the file of a sealed recording is still there: a hook may move it away. Blocking.
    pub(crate) fn look(&self, manifest: Manifest) -> Manifest {
        look(&self.dir, manifest)
    }

    /// All manifests, those of deleted recordings too. What a crash left half done is finished: replacements are
    /// removed, and files whose manifest says `deleted`. Blocking.
    pub(super) fn open(&self) -> io::Result<Vec<Manifest>> {
        for name in names_in(&self.dir)?.filter(|name| is_temporary(name)) {
            let _ = fs::remove_file(self.dir.join(name));
        }
        let manifests: Vec<_> = read_all(&self.dir)?.collect();
        manifests.iter().for_each(|manifest| finish_deletion(&self.dir, manifest));
        Ok(manifests)
    }

    /// Whether a manifest is what a crash left behind when its file was renamed, beside the new one.
    pub(super) fn is_stale(&self, known: &Manifest, other: &Manifest) -> bool {
        !self.path(known).exists() && self.path(other).exists()
    }

    /// Writes a manifest durably. That of a recording under way takes nothing of the space kept back (S6).
    /// Blocking.
    pub(super) fn write(&self, manifest: &Manifest) -> io::Result<()> {
        let stored = stored(manifest);
        if stored.state == RecordingState::Recording {
            let json = json(&stored)?;
            return self.space.grow(|| self.replace(&stored, &json));
        }
        self.write_in_any_case(&stored)
    }

    /// The same with the space that is kept back, if there is no other.
    pub(super) fn write_in_any_case(&self, manifest: &Manifest) -> io::Result<()> {
        let json = json(manifest)?;
        self.space.relieved(json.len() as u64, || self.replace(manifest, &json))
    }

    fn replace(&self, manifest: &Manifest, json: &[u8]) -> io::Result<()> {
        replace(&self.dir, &manifest_name(&manifest.file), self.mode, json)
    }

    /// Moves away what has the name of a manifest and could not be read as one. Blocking.
    pub(super) fn set_aside_unreadable(&self, manifest: &Manifest) -> io::Result<()> {
        let path = self.manifest_path(manifest);
        if !path.exists() {
            return Ok(());
        }
        move_away(&path, &self.dir.join(QUARANTINE), &manifest_name(&manifest.file))
    }

    /// Removes a manifest durably. Blocking.
    pub(super) fn remove(&self, manifest: &Manifest) -> io::Result<()> {
        fs::remove_file(self.manifest_path(manifest))?;
        sync_dir(&self.dir)
    }

    /// Removes a recording's file, whose manifest says so durably (S3). Blocking.
    pub(crate) fn remove_file(&self, manifest: &Manifest) -> io::Result<()> {
        match fs::remove_file(self.path(manifest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => sync_dir(&self.dir),
        }
    }
}

/// All manifests of a folder that a server may be working in. Blocking; changes nothing.
pub(crate) fn manifests(dir: &Path) -> io::Result<Vec<Manifest>> {
    Ok(read_all(dir)?.map(|manifest| look(dir, manifest)).collect())
}

/// A manifest's name: the recording's with another suffix.
pub(crate) fn manifest_name(file: &str) -> String {
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    format!("{stem}.json")
}

/// A manifest as it is written: a disk that fails takes no note of that.
pub(super) fn stored(manifest: &Manifest) -> Manifest {
    let mut manifest = manifest.clone();
    if manifest.state == RecordingState::Sealing {
        (manifest.state, manifest.error) = (RecordingState::Recording, None);
    }
    manifest
}

fn json(manifest: &Manifest) -> io::Result<Vec<u8>> {
    let mut json = serde_json::to_vec_pretty(manifest)?;
    json.push(b'\n');
    Ok(json)
}

fn path(dir: &Path, manifest: &Manifest) -> PathBuf {
    match manifest.state {
        RecordingState::Recording | RecordingState::Sealing => dir.join(format!("{}{PART}", manifest.file)),
        RecordingState::Quarantined => dir.join(QUARANTINE).join(&manifest.file),
        _ => dir.join(&manifest.file),
    }
}

fn look(dir: &Path, mut manifest: Manifest) -> Manifest {
    if manifest.state == RecordingState::Sealed {
        manifest.file_present = path(dir, &manifest).is_file();
    }
    manifest
}

/// Those that can be read; a warning names each other one.
fn read_all(dir: &Path) -> io::Result<impl Iterator<Item = Manifest> + '_> {
    let manifests = names_in(dir)?.filter(|name| name.ends_with(".json") && is_plain(name));
    Ok(manifests.filter_map(|name| {
        let read = read(dir, &name);
        read.inspect_err(|error| tracing::warn!(manifest = name, error, "a manifest is left out")).ok()
    }))
}

/// The files of a folder, but for those whose names are no UTF-8: none is ours.
fn names_in(dir: &Path) -> io::Result<impl Iterator<Item = String>> {
    let entries: Vec<_> = fs::read_dir(dir)?.collect::<io::Result<_>>()?;
    Ok(entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok()))
}

fn read(dir: &Path, name: &str) -> Result<Manifest, String> {
    let text = fs::read(dir.join(name)).map_err(|error| error.to_string())?;
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    // The name is used as a path: one that leads elsewhere must not be read, let alone deleted.
    if !is_plain(&manifest.file) || manifest_name(&manifest.file) != name {
        return Err(format!("it names the file {:?}, which is not the one beside it", manifest.file));
    }
    Ok(stored(&manifest))
}

/// A deletion that a crash cut short is brought to its end, wherever the file was.
fn finish_deletion(dir: &Path, manifest: &Manifest) {
    if manifest.state != RecordingState::Deleted {
        return;
    }
    for path in [path(dir, manifest), dir.join(QUARANTINE).join(&manifest.file)] {
        if fs::remove_file(&path).is_ok() {
            tracing::info!(path = %path.display(), "removed a file whose manifest says deleted");
        }
    }
}
