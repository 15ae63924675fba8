//! Writing past the page cache.
//!
//! What goes into a segment is read again after a restart, or for a follower that lags: rarely. Through the page
//! cache it would first be copied to where it is in no cache of the processor, and whole pages would be written for a
//! part of one. A write of whole sectors from memory that lies right goes from there to the disk. And what a restart
//! reads is what the disk has, not what the kernel remembers of a write that failed.

use super::sector::SECTOR_BYTES;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Where memory begins that a disk is written from, in bytes: at multiples of what any disk asks for.
const ALIGNMENT: usize = 4 << 10;
/// Most bytes of one direct write; more go in several.
const DIRECT_BYTES_MAX: usize = 1 << 20;

/// A file open for writing.
pub struct OpenFile {
    pub file: File,
    /// Its writes go past the page cache.
    is_direct: bool,
}

impl OpenFile {
    /// A file of `bytes` bytes. One of whole sectors is expected to be written in whole sectors.
    pub fn new(file: File, bytes: u64) -> OpenFile {
        let has_sectors = bytes > 0 && bytes.is_multiple_of(SECTOR_BYTES as u64);
        // Some file systems have no such thing; then it is a file like any other.
        let is_direct = has_sectors && set_direct(&file, true).is_ok();
        OpenFile { file, is_direct }
    }

    /// Writes all of `bytes`. Whoever writes often keeps the memory.
    pub fn write_at(
        &mut self,
        memory: &mut Aligned,
        mut offset: u64,
        bytes: &[u8],
    ) -> io::Result<()> {
        for part in bytes.chunks(DIRECT_BYTES_MAX) {
            self.write_part(memory, offset, part)?;
            offset += part.len() as u64;
        }
        Ok(())
    }

    fn write_part(&mut self, memory: &mut Aligned, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.is_direct {
            let bytes = if is_aligned(bytes) { bytes } else { memory.copy(bytes) };
            match self.file.write_all_at(bytes, offset) {
                // This disk has larger sectors, or these were not whole ones: refused before anything was written.
                Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
                    set_direct(&self.file, false)?;
                    self.is_direct = false;
                }
                written => return written,
            }
        }
        self.file.write_all_at(bytes, offset)
    }
}

fn set_direct(file: &File, is_direct: bool) -> io::Result<()> {
    let mut flags = fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, is_direct);
    Ok(fcntl_setfl(file, flags)?)
}

/// Bytes that lie where a disk can be written from.
#[derive(Default)]
pub struct Aligned {
    memory: Vec<u8>,
    start: usize,
}

impl Aligned {
    /// Empties it. What is appended lies right if it is no more than `bytes_max`.
    #[inline(never)]
    pub fn begin(&mut self, bytes_max: usize) -> &mut Vec<u8> {
        self.memory.clear();
        self.memory.reserve(bytes_max + ALIGNMENT);
        self.start = self.memory.as_ptr().align_offset(ALIGNMENT);
        self.memory.resize(self.start, 0);
        &mut self.memory
    }

    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start..]
    }

    /// Empties it, and gives back room beyond `bytes_max`.
    pub fn clear(&mut self, bytes_max: usize) {
        self.start = 0;
        self.memory.clear();
        self.memory.shrink_to(bytes_max);
    }

    fn copy(&mut self, bytes: &[u8]) -> &[u8] {
        self.begin(bytes.len()).extend_from_slice(bytes);
        self.bytes()
    }
}

fn is_aligned(bytes: &[u8]) -> bool {
    bytes.as_ptr().align_offset(ALIGNMENT) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const SECTOR: u64 = SECTOR_BYTES as u64;

    /// What a file of `bytes` bytes holds after writes at these places.
    fn written(test: &str, bytes: u64, writes: &[(u64, &[u8])]) -> Vec<u8> {
        let name = format!("raftkv-direct-{test}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let file = File::create(&path).unwrap();
        file.set_len(bytes).unwrap();
        let mut file = OpenFile::new(file, bytes);
        let mut memory = Aligned::default();
        for (offset, part) in writes {
            file.write_at(&mut memory, *offset, part).unwrap();
        }
        let content = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        content
    }

    #[test]
    fn whole_sectors_of_any_number_are_where_they_were_written() {
        let long: Vec<u8> = (0..DIRECT_BYTES_MAX + 3 * SECTOR_BYTES).map(|n| n as u8 | 1).collect();
        let short = [7; 2 * SECTOR_BYTES];
        let bytes = long.len() as u64 + 4 * SECTOR;
        let content = written("whole", bytes, &[(2 * SECTOR, &long), (SECTOR, &short)]);
        assert_eq!(content.len() as u64, bytes);
        let (front, rest) = content.split_at(SECTOR_BYTES);
        let (twos, rest) = rest.split_at(short.len());
        let (longs, end) = rest.split_at(long.len() - SECTOR_BYTES);
        assert!(front.iter().chain(end).all(|&byte| byte == 0));
        assert_eq!((twos, longs), (&short[..], &long[SECTOR_BYTES..]));
    }

    #[test]
    fn what_is_begun_lies_right_however_much_it_becomes() {
        for length in [1, SECTOR_BYTES, 3 * ALIGNMENT, DIRECT_BYTES_MAX + SECTOR_BYTES] {
            let mut image = Aligned::default();
            image.begin(length).resize(ALIGNMENT, 1);
            image.begin(length).extend(std::iter::repeat_n(2, length));
            assert_eq!(image.bytes(), vec![2; length]);
            assert!(image.bytes().chunks(DIRECT_BYTES_MAX).all(is_aligned), "{length} bytes");
        }
    }

    #[test]
    fn what_cannot_go_past_the_page_cache_goes_through_it() {
        let parts: [(u64, &[u8]); 3] =
            [(0, &[1; SECTOR_BYTES]), (SECTOR - 2, &[2; 5]), (2 * SECTOR, &[3; SECTOR_BYTES])];
        let content = written("parts", 3 * SECTOR, &parts);
        let (first, rest) = content.split_at(SECTOR_BYTES - 2);
        let (part, rest) = rest.split_at(5);
        let (between, last) = rest.split_at(SECTOR_BYTES - 3);
        assert_eq!((first, part), (&[1; SECTOR_BYTES - 2][..], &[2; 5][..]));
        assert_eq!((between, last), (&[0; SECTOR_BYTES - 3][..], &[3; SECTOR_BYTES][..]));
    }
}
