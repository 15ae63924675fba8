//! A change stream as payloads of frames: one request, and then replies to it for as long as the
//! connection lasts. A failure with the same id ends it.

use crate::codec::{
    Malformed, Reader, put_blob, put_bool, put_list, put_option, put_u8, put_u64, read_list,
};
use crate::kv::{Change, ChangeRef};
use crate::raft::Index;

/// One of the replies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Streamed {
    /// The first one: changes from this index on follow.
    Begun { from: Index },
    /// What the entry at `index` has changed. `more`: another reply has the rest of it.
    Changes { index: Index, changes: Vec<Change>, more: bool },
    /// Nothing that was asked for is missing up to this index.
    Progress { index: Index },
}

const BEGUN: u8 = 0;
const CHANGES: u8 = 1;
const PROGRESS: u8 = 2;

pub(super) fn put_request(out: &mut Vec<u8>, prefix: &[u8], from: Option<Index>) {
    put_blob(out, prefix);
    put_option(out, from, put_u64);
}

pub(super) fn read_request(reader: &mut Reader<'_>) -> Result<(Vec<u8>, Option<Index>), Malformed> {
    let prefix = reader.blob("prefix")?.to_vec();
    let from = reader.option("first log index", |reader| reader.u64("first log index"))?;
    Ok((prefix, from))
}

impl Streamed {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Streamed::Begun { from } => {
                put_u8(out, BEGUN);
                put_u64(out, *from);
            }
            Streamed::Changes { index, changes, more } => {
                put_u8(out, CHANGES);
                put_u64(out, *index);
                put_bool(out, *more);
                put_list(out, changes, |out, change| change.view().encode(out));
            }
            Streamed::Progress { index } => {
                put_u8(out, PROGRESS);
                put_u64(out, *index);
            }
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let what = reader.u8("what is streamed")?;
        let index = reader.u64("log index")?;
        match what {
            BEGUN => Ok(Streamed::Begun { from: index }),
            CHANGES => {
                let more = reader.bool("whether more changes follow")?;
                let change = |reader: &mut Reader<'_>| Ok(ChangeRef::read(reader)?.to_change());
                Ok(Streamed::Changes { index, more, changes: read_list(reader, change)? })
            }
            PROGRESS => Ok(Streamed::Progress { index }),
            _ => Err(Malformed("what is streamed")),
        }
    }
}
