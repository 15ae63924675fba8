//! What the log needs of a disk, and the real one.
//!
//! The trait is small, and says when a thing becomes durable, so that a simulated disk can forget, tear,
//! reorder or refuse everything that the real one is allowed to:
//!
//! - written bytes are durable once [`Disk::sync_data`] of that file returned; until then any of their
//!   sectors may survive a crash, in any combination;
//! - names (made, renamed, removed) are durable once [`Disk::sync_dir`] returned; until then each may or
//!   may not survive a crash, but a rename is never seen half done;
//! - after an error of a write or a sync, nothing is known of what it should have made durable.

use super::WalError;
use super::direct::{Aligned, OpenFile};
use super::identity::FILE as IDENTITY_NAME;
use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate, fstatvfs};
use rustix::io::{Errno, retry_on_intr};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const LOCK_NAME: &str = "LOCK";

/// Of the room of removed files, given back at once. The kernel frees page by page what it still has of a file in
/// memory, and a MiB takes it more than half a millisecond.
const FREED_BYTES: u64 = 2 << 20;
/// Removed files that are held open until their room is given back.
const LEAVING_FILES_MAX: usize = 8;

/// Zeros written at once where there is no fallocate.
const ZEROS_BYTES: u64 = 64 << 10;

/// One folder of files.
pub trait Disk {
    /// A file open for writing.
    type File;

    /// Names of all files in the folder, in any order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// The whole content of a file.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// `bytes` bytes of a file from `offset` on; fewer if the file ends before that.
    fn read_at(&self, name: &str, offset: u64, bytes: usize) -> io::Result<Vec<u8>>;

    /// A new file of `bytes` zero bytes with room for all of them set aside; an error if the name is
    /// taken. A file made with 0 bytes grows by what is written at its end.
    fn create(&mut self, name: &str, bytes: u64) -> io::Result<Self::File>;

    /// An existing file, lengthened with zero bytes to at least `bytes`.
    fn open(&mut self, name: &str, bytes: u64) -> io::Result<Self::File>;

    /// Writes all of `bytes`, `offset` bytes from the start of the file. Whatever happens on the way, each
    /// sector of 512 bytes holds what it held before or what was written, never a mixture.
    fn write_at(&mut self, file: &mut Self::File, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Has what was written there go to the disk from now on, without waiting for it, so that a later sync finds
    /// little left to do. Nothing is durable by it; a disk that does nothing here is only slower.
    fn start_writing(&mut self, _file: &mut Self::File, _offset: u64, _bytes: usize) {}

    fn sync_data(&mut self, file: &mut Self::File) -> io::Result<()>;

    /// Replaces `to` if it exists.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// The name is gone at once; the room of a large file may come back only with [`Disk::free_some`].
    fn remove(&mut self, name: &str) -> io::Result<()>;

    /// Gives back a part of the room of removed files: that of a large one, all at once, would take too long. A
    /// disk on which it never does need not.
    fn free_some(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Room of removed files that is not given back yet, in bytes.
    fn leaving_bytes(&self) -> u64 {
        0
    }

    fn sync_dir(&mut self) -> io::Result<()>;

    /// Room for further files; `None` if nobody knows.
    fn free_bytes(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }

    /// How a message calls a file, or with an empty name the folder.
    fn path(&self, name: &str) -> PathBuf;
}

/// A folder of the file system, locked against other processes for as long as this lives.
pub struct FileDisk {
    folder: PathBuf,
    handle: File,
    /// Removed files, without a name, and how long each still is. The end of the process frees them too.
    leaving: Vec<(File, u64)>,
    memory: Aligned,
    _lock: File,
}

impl FileDisk {
    /// Opens the data folder of a node that has run before.
    ///
    /// # Errors
    ///
    /// [`WalError::Foreign`] if it is none, and then nothing is made; else as [`FileDisk::open`].
    pub fn open_existing(dir: &Path) -> Result<FileDisk, WalError> {
        if !dir.join(IDENTITY_NAME).is_file() {
            let what = "holds no node's data".to_owned();
            return Err(WalError::Foreign { folder: dir.to_path_buf(), what });
        }
        FileDisk::open(dir)
    }

    /// Opens the data folder, making it and its parents if need be.
    ///
    /// # Errors
    ///
    /// [`WalError::InUse`] if another process holds the folder, [`WalError::Io`] otherwise.
    pub fn open(dir: &Path) -> Result<FileDisk, WalError> {
        let fail = |operation, path: &Path| {
            let path = path.to_path_buf();
            move |e| WalError::io(operation, path, e)
        };
        create_folder(dir)?;
        let handle = File::open(dir).map_err(fail("open", dir))?;
        let lock_path = dir.join(LOCK_NAME);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(fail("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {
                let (folder, leaving) = (dir.to_path_buf(), Vec::new());
                Ok(FileDisk { folder, handle, leaving, memory: Aligned::default(), _lock: lock })
            }
            Err(TryLockError::WouldBlock) => Err(WalError::InUse { folder: dir.to_path_buf() }),
            Err(TryLockError::Error(e)) => Err(fail("lock", &lock_path)(e)),
        }
    }
}

/// Makes the data folder and its parents, with names that survive a crash. The lock file comes after
/// that, so a folder that has one is already safe.
fn create_folder(dir: &Path) -> Result<(), WalError> {
    if dir.join(LOCK_NAME).exists() {
        return Ok(());
    }
    let parent = match dir.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let existed = dir.is_dir();
    if !existed {
        if !parent.is_dir() {
            create_folder(parent)?;
        }
        fs::create_dir(dir).map_err(|e| WalError::io("create", dir.to_path_buf(), e))?;
    }
    match File::open(parent).and_then(|folder| folder.sync_all()) {
        // Whoever prepared this folder under a parent closed to us has answered for its name.
        Err(e) if existed && e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced.map_err(|e| WalError::io("sync", parent.to_path_buf(), e)),
    }
}

impl Disk for FileDisk {
    type File = OpenFile;

    fn list(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.folder)?
            .map(|item| Ok(item?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path(name))
    }

    fn read_at(&self, name: &str, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let file = File::open(self.path(name))?;
        let mut out = vec![0; bytes];
        let mut filled = 0;
        while filled < bytes {
            match file.read_at(&mut out[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        out.truncate(filled);
        Ok(out)
    }

    fn create(&mut self, name: &str, bytes: u64) -> io::Result<OpenFile> {
        let file = OpenOptions::new().write(true).create_new(true).open(self.path(name))?;
        allocate(&file, 0, bytes)?;
        Ok(OpenFile::new(file, bytes))
    }

    fn open(&mut self, name: &str, bytes: u64) -> io::Result<OpenFile> {
        let file = OpenOptions::new().write(true).open(self.path(name))?;
        let length = file.metadata()?.len();
        allocate(&file, length, bytes)?;
        Ok(OpenFile::new(file, bytes))
    }

    fn write_at(&mut self, file: &mut OpenFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
        file.write_at(&mut self.memory, offset, bytes)
    }

    fn start_writing(&mut self, file: &mut OpenFile, offset: u64, bytes: usize) {
        // The kernel begins to write what it is told will not be needed: it takes no other hint without waiting. If it
        // does not take this one, the sync has more to do.
        let _ = fadvise(&file.file, offset, NonZeroU64::new(bytes as u64), Advice::DontNeed);
    }

    fn sync_data(&mut self, file: &mut OpenFile) -> io::Result<()> {
        file.file.sync_data()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        let bytes = fs::metadata(&path)?.len();
        let is_held = bytes > FREED_BYTES && self.leaving.len() < LEAVING_FILES_MAX;
        // One that cannot be opened goes at once.
        let file = is_held.then(|| OpenOptions::new().write(true).open(&path).ok()).flatten();
        fs::remove_file(path)?;
        self.leaving.extend(file.map(|file| (file, bytes)));
        Ok(())
    }

    fn free_some(&mut self) -> io::Result<()> {
        let Some((file, bytes)) = self.leaving.last_mut() else { return Ok(()) };
        *bytes = bytes.saturating_sub(FREED_BYTES);
        file.set_len(*bytes)?;
        self.leaving.pop_if(|(_, bytes)| *bytes == 0);
        Ok(())
    }

    fn leaving_bytes(&self) -> u64 {
        self.leaving.iter().map(|(_, bytes)| bytes).sum()
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        let room = fstatvfs(&self.handle)?;
        Ok(Some(room.f_bavail.saturating_mul(room.f_frsize)))
    }

    // For messages and now and then a file, and asked for in a hundred places.
    #[inline(never)]
    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.folder.clone() } else { self.folder.join(name) }
    }
}

/// Lengthens a file from `length` to `bytes`, with room set aside: a later write can neither change the
/// file's size, which would cost a sync more, nor find the disk full.
fn allocate(file: &File, length: u64, bytes: u64) -> io::Result<()> {
    if length >= bytes {
        return Ok(());
    }
    let room = bytes - length;
    match retry_on_intr(|| fallocate(file, FallocateFlags::empty(), length, room)) {
        Err(Errno::OPNOTSUPP) => write_zeros(file, length, bytes),
        result => Ok(result?),
    }
}

/// For file systems without fallocate.
fn write_zeros(file: &File, mut from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS_BYTES as usize];
    while from < to {
        let part = (to - from).min(ZEROS_BYTES);
        file.write_all_at(&zeros[..part as usize], from)?;
        from += part;
    }
    Ok(())
}
