//! The page as it stands in the binary: nothing from elsewhere, and a policy that fits it.

const PAGE: &str = include_str!("../src/server/page/index.html");
const POLICY: &str = include_str!("../src/server/page/mod.rs");

/// The page is in the binary of every node.
const PAGE_BYTES_MAX: usize = 26 * 1024;

fn between<'a>(text: &'a str, open: &str, close: &str) -> &'a str {
    assert_eq!(text.matches(open).count(), 1, "{open}");
    let after = text.split_once(open).expect("it is there").1;
    after.split_once(close).expect("it ends").0
}

#[test]
fn the_policy_allows_its_style_and_its_script_and_no_other() {
    for (what, element) in [("script-src", "script"), ("style-src", "style")] {
        let text = between(PAGE, &format!("<{element}>"), &format!("</{element}>"));
        let hash = format!("{what} 'sha256-{}'", base64(&sha256(text.as_bytes())));
        assert!(POLICY.contains(&hash), "src/server/page/mod.rs is to have {hash}");
    }
    assert!(POLICY.contains("default-src 'none'") && !POLICY.contains("unsafe"));
}

#[test]
fn nothing_comes_from_elsewhere() {
    for (at, line) in PAGE.lines().enumerate() {
        let foreign = line.replace("xmlns='http://www.w3.org/2000/svg'", "");
        // The link to the leader's own page is the only address.
        let foreign = foreign.replace("href: \"http://\" + leader.address", "");
        for sign in ["http:", "https:", "//", "@import", "url(", "src="] {
            let is_comment = sign == "//" && foreign.trim_start().starts_with("// ");
            assert!(!foreign.contains(sign) || is_comment, "line {}: {line}", at + 1);
        }
        assert!(!line.contains(" style=") && !line.contains("innerHTML"), "{line}");
    }
    assert!(PAGE.len() <= PAGE_BYTES_MAX, "{} bytes", PAGE.len());
}

#[test]
fn the_hash_is_that_of_the_standard() {
    let hex = |bytes: [u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(hex(sha256(b"abc")), abc);
    let million = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
    assert_eq!(hex(sha256(&[b'a'; 1_000_000])), million);
    assert_eq!(base64(b"any carnal pleasur"), "YW55IGNhcm5hbCBwbGVhc3Vy");
    assert_eq!(base64(&[0xff; 32]).len(), 44);
}

/// FIPS 180-4. Its constants are the first bits of the fractional parts of roots of the first primes.
fn sha256(message: &[u8]) -> [u8; 32] {
    let primes: Vec<u64> =
        (2..312).filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0)).collect();
    let k: Vec<u32> = primes.iter().take(64).map(|prime| root_bits(*prime, 3)).collect();
    let mut state: Vec<u32> = primes.iter().take(8).map(|prime| root_bits(*prime, 2)).collect();
    let mut padded = message.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(64), 0);
    if padded.len() - message.len() < 9 {
        padded.resize(padded.len() + 64, 0);
    }
    let end = padded.len() - 8;
    padded[end..].copy_from_slice(&(message.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks(64) {
        let mut w: Vec<u32> = block
            .chunks(4)
            .map(|word| u32::from_be_bytes(word.try_into().expect("four bytes")))
            .collect();
        for t in 16..64 {
            let s0 = w[t - 15].rotate_right(7) ^ w[t - 15].rotate_right(18) ^ (w[t - 15] >> 3);
            let s1 = w[t - 2].rotate_right(17) ^ w[t - 2].rotate_right(19) ^ (w[t - 2] >> 10);
            w.push(w[t - 16].wrapping_add(s0).wrapping_add(w[t - 7]).wrapping_add(s1));
        }
        let mut v = state.clone();
        for t in 0..64 {
            let s1 = v[4].rotate_right(6) ^ v[4].rotate_right(11) ^ v[4].rotate_right(25);
            let choice = (v[4] & v[5]) ^ (!v[4] & v[6]);
            let t1 = [s1, choice, k[t], w[t]].iter().fold(v[7], |sum, one| sum.wrapping_add(*one));
            let s0 = v[0].rotate_right(2) ^ v[0].rotate_right(13) ^ v[0].rotate_right(22);
            let majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
            v.rotate_right(1);
            v[4] = v[4].wrapping_add(t1);
            v[0] = t1.wrapping_add(s0).wrapping_add(majority);
        }
        state.iter_mut().zip(v).for_each(|(word, one)| *word = word.wrapping_add(one));
    }
    let bytes: Vec<u8> = state.iter().flat_map(|word| word.to_be_bytes()).collect();
    bytes.try_into().expect("eight words")
}

/// The first 32 bits after the point of the square or cube root, without floating point.
fn root_bits(prime: u64, degree: u32) -> u32 {
    let wanted = u128::from(prime) << (32 * degree);
    let mut root: u128 = 0;
    for bit in (0..40).rev() {
        let next = root | 1 << bit;
        if next.pow(degree) <= wanted {
            root = next;
        }
    }
    root as u32
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |chunk: &[u8]| {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - chunk.len()));
        let digit = |at: usize| match at <= chunk.len() {
            true => char::from(DIGITS[(bits >> (18 - 6 * at) & 63) as usize]),
            false => '=',
        };
        (0..4).map(digit).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}
