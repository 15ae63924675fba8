//! The bytes of reads and of what they find: in requests and answers, and in the steps of a transaction.

use super::{Found, Range, ReadOp};
use crate::codec::{
    Malformed, Reader, put_blob, put_bool, put_list, put_option, put_u8, put_u32, put_u64,
    read_list,
};

const VALUES: u8 = 0;
const LENGTHS: u8 = 1;
const RANGE: u8 = 2;
const RANDOM_KEY: u8 = 3;
const EXPIRY: u8 = 4;
const VERSIONS: u8 = 5;
const DIGEST: u8 = 6;

impl ReadOp {
    /// What, then its fields.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            ReadOp::Values(keys) => {
                put_u8(out, VALUES);
                put_list(out, keys, |out, key| put_blob(out, key));
            }
            ReadOp::Lengths(keys) => {
                put_u8(out, LENGTHS);
                put_list(out, keys, |out, key| put_blob(out, key));
            }
            ReadOp::Range(range) => {
                put_u8(out, RANGE);
                put_blob(out, &range.start);
                put_option(out, range.end.as_deref(), put_blob);
                put_bool(out, range.reverse);
                put_option(out, range.pattern.as_deref(), put_blob);
                put_bool(out, range.with_values);
                put_u32(out, range.keys_max);
                put_bool(out, range.partial);
            }
            ReadOp::RandomKey => put_u8(out, RANDOM_KEY),
            ReadOp::Expiry(key) => {
                put_u8(out, EXPIRY);
                put_blob(out, key);
            }
            ReadOp::Versions(keys) => {
                put_u8(out, VERSIONS);
                put_list(out, keys, |out, key| put_blob(out, key));
            }
            ReadOp::Digest => put_u8(out, DIGEST),
        }
    }

    pub fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let what = reader.u8("what to read")?;
        let keys = |reader: &mut Reader<'_>| read_list(reader, |r| Ok(r.blob("key")?.into()));
        match what {
            VALUES => keys(reader).map(ReadOp::Values),
            LENGTHS => keys(reader).map(ReadOp::Lengths),
            RANGE => read_range(reader).map(ReadOp::Range),
            RANDOM_KEY => Ok(ReadOp::RandomKey),
            EXPIRY => Ok(ReadOp::Expiry(reader.blob("key")?.into())),
            VERSIONS => keys(reader).map(ReadOp::Versions),
            DIGEST => Ok(ReadOp::Digest),
            _ => Err(Malformed("what to read")),
        }
    }
}

fn read_range(reader: &mut Reader<'_>) -> Result<Range, Malformed> {
    let range = Range {
        start: reader.blob("start of a range")?.into(),
        end: reader.option("end of a range", |r| r.blob("end of a range"))?.map(Into::into),
        reverse: reader.bool("whether the range is reversed")?,
        pattern: reader.option("pattern", |r| r.blob("pattern"))?.map(Into::into),
        with_values: reader.bool("whether values are wanted")?,
        keys_max: reader.u32("most keys")?,
        partial: reader.bool("whether the answer may be partial")?,
    };
    // Where to go on is only known of one direction.
    if range.reverse && range.partial {
        return Err(Malformed("range: reversed and partial"));
    }
    Ok(range)
}

impl Found {
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Found::Values(values) => {
                put_u8(out, VALUES);
                put_list(out, values, |out, value| put_option(out, value.as_deref(), put_blob));
            }
            Found::Lengths(lengths) => {
                put_u8(out, LENGTHS);
                put_list(out, lengths, |out, length| put_option(out, *length, put_u32));
            }
            Found::Keys { items, next } => {
                put_u8(out, RANGE);
                put_list(out, items, |out, item| put_blob(out, item));
                put_option(out, next.as_deref(), put_blob);
            }
            Found::Expiry { expires_at, now } => {
                put_u8(out, EXPIRY);
                put_option(out, *expires_at, put_u64);
                put_u64(out, *now);
            }
            Found::Versions(versions) => {
                put_u8(out, VERSIONS);
                put_list(out, versions, |out, version| put_u64(out, *version));
            }
            Found::Digest { digest, keys } => {
                put_u8(out, DIGEST);
                put_u64(out, *digest);
                put_u64(out, *keys);
            }
        }
    }

    /// What it takes in an answer besides its first bytes; never less than its encoding.
    pub(super) fn bytes(&self) -> usize {
        const ITEM_BYTES: usize = 5;
        let length = |item: Option<&[u8]>| item.map_or(0, <[u8]>::len);
        match self {
            Found::Values(values) => {
                values.iter().map(|value| ITEM_BYTES + length(value.as_deref())).sum()
            }
            Found::Lengths(lengths) => lengths.len() * ITEM_BYTES,
            Found::Keys { items, next } => {
                let items: usize = items.iter().map(|item| ITEM_BYTES + item.len()).sum();
                items + ITEM_BYTES + length(next.as_deref())
            }
            Found::Versions(versions) => versions.len() * size_of::<u64>(),
            Found::Expiry { .. } | Found::Digest { .. } => 2 * size_of::<u64>(),
        }
    }

    pub fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        match reader.u8("what was read")? {
            VALUES => {
                let value = |r: &mut Reader<'_>| r.option("value", |r| Ok(r.blob("value")?.into()));
                read_list(reader, value).map(Found::Values)
            }
            LENGTHS => {
                read_list(reader, |r| r.option("length", |r| r.u32("length"))).map(Found::Lengths)
            }
            RANGE => Ok(Found::Keys {
                items: read_list(reader, |r| Ok(r.blob("key or value")?.into()))?,
                next: reader.option("next key", |r| r.blob("next key"))?.map(Into::into),
            }),
            EXPIRY => Ok(Found::Expiry {
                expires_at: reader.option("expiry", |r| r.u64("expiry"))?,
                now: reader.u64("time of a read")?,
            }),
            VERSIONS => read_list(reader, |r| r.u64("index of a key")).map(Found::Versions),
            DIGEST => Ok(Found::Digest {
                digest: reader.u64("digest")?,
                keys: reader.u64("number of keys")?,
            }),
            _ => Err(Malformed("what was read")),
        }
    }
}
