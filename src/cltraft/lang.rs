//! The words of the main job, in two languages. Everything else `cltraft` says is in English.

use crate::lines::{Note, count_note};
use std::fmt::Display;

/// What the main job speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lang {
    English,
    Spanish,
}

impl Lang {
    /// `es` or `en`, also as the start of a locale's name: `es_ES.UTF-8`.
    pub fn parse(name: &str) -> Option<Lang> {
        match name.split(['_', '.', '@', '-']).next() {
            Some("es") => Some(Lang::Spanish),
            Some("en") => Some(Lang::English),
            _ => None,
        }
    }

    /// The first of `LC_ALL`, `LC_MESSAGES` and `LANG` that is set and not empty decides, as in POSIX.
    pub fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Lang {
        let locale = ["LC_ALL", "LC_MESSAGES", "LANG"]
            .into_iter()
            .filter_map(env)
            .find(|value| !value.is_empty());
        locale.and_then(|name| Lang::parse(&name)).unwrap_or(Lang::English)
    }

    pub fn write_operation(self, key: &str, value: u64) -> String {
        match self {
            Lang::English => format!("Write operation: key = {key}, value = {value}"),
            Lang::Spanish => format!("Operación de escritura: clave = {key}, valor = {value}"),
        }
    }

    /// `index`: the log index of the write. `leader`: the number of the node that took it.
    pub fn submitted(self, index: u64, leader: u64) -> String {
        match self {
            Lang::English => format!("Operation {index} submitted to {leader}"),
            Lang::Spanish => format!("Operación {index} sometida a {leader}"),
        }
    }

    pub fn read_operation(self, key: &str) -> String {
        match self {
            Lang::English => format!("Read operation: key = {key}"),
            Lang::Spanish => format!("Operación de lectura: clave = {key}"),
        }
    }

    pub fn correct_value(self, key: &str, value: &str) -> String {
        match self {
            Lang::English => format!("Correct value read: {key} = {value}"),
            Lang::Spanish => format!("Valor correcto leído: {key} = {value}"),
        }
    }

    pub fn wrong_value(self, key: &str, expected: &str, read: &str) -> String {
        match self {
            Lang::English => format!("ERROR: wrong value: {key} should be {expected}, read {read}"),
            Lang::Spanish => {
                format!("ERROR: valor incorrecto: {key} debería ser {expected}, leído {read}")
            }
        }
    }

    /// How a missing key is called where a value stands.
    pub fn nothing(self) -> &'static str {
        match self {
            Lang::English => "(nothing)",
            Lang::Spanish => "(nada)",
        }
    }

    pub fn or(self) -> &'static str {
        match self {
            Lang::English => " or ",
            Lang::Spanish => " o ",
        }
    }

    /// Of lines that standard output did not take.
    pub fn dropped(self) -> Note {
        match self {
            Lang::English => |count, why| count_note("line", count, why),
            Lang::Spanish => |count, why| format!("Líneas descartadas: {count}; {why}"),
        }
    }

    pub fn no_leader(self, reasons: &dyn Display) -> String {
        match self {
            Lang::English => format!("No leader can be reached, still trying: {reasons}"),
            Lang::Spanish => format!("No se alcanza ningún líder, se sigue intentando: {reasons}"),
        }
    }

    pub fn leader_found(self, leader: u64, server: &str) -> String {
        match self {
            Lang::English => format!("The leader is {leader} ({server})"),
            Lang::Spanish => format!("El líder es {leader} ({server})"),
        }
    }

    pub fn outcome_unknown(self, key: &str, value: u64, error: &dyn Display) -> String {
        match self {
            Lang::English => format!("It is unknown whether {key} = {value} was written: {error}"),
            Lang::Spanish => format!("No se sabe si se ha escrito {key} = {value}: {error}"),
        }
    }

    pub fn goes_on(self, keys: usize, value: u64) -> String {
        match self {
            Lang::English => {
                format!("The store holds {keys} of the keys already; going on with value {value}")
            }
            Lang::Spanish => {
                format!("El almacén ya tiene {keys} de las claves; se sigue con el valor {value}")
            }
        }
    }

    pub fn all_there(self, keys: usize) -> String {
        match self {
            Lang::English => format!("Keys written so far and read again: {keys}, all correct"),
            Lang::Spanish => {
                format!("Claves escritas hasta ahora y releídas: {keys}, todas correctas")
            }
        }
    }

    pub fn listening(self, address: &dyn Display) -> String {
        match self {
            Lang::English => format!("Probes are answered at {address}"),
            Lang::Spanish => format!("Las sondas se contestan en {address}"),
        }
    }

    pub fn cannot_listen(self, address: &dyn Display, error: &dyn Display) -> String {
        match self {
            Lang::English => format!("Cannot answer probes at {address}: {error}"),
            Lang::Spanish => format!("No se pueden contestar sondas en {address}: {error}"),
        }
    }

    pub fn summary(self, writes: u64, reads: u64, wrong: u64) -> String {
        match self {
            Lang::English => format!("Writes: {writes}, reads: {reads}, wrong values: {wrong}"),
            Lang::Spanish => {
                format!("Escrituras: {writes}, lecturas: {reads}, valores incorrectos: {wrong}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lang(pairs: &[(&str, &str)]) -> Lang {
        Lang::from_env(&|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string())
        })
    }

    #[test]
    fn the_environment_decides_as_in_posix() {
        assert_eq!(lang(&[]), Lang::English);
        assert_eq!(lang(&[("LANG", "es_ES.UTF-8")]), Lang::Spanish);
        assert_eq!(lang(&[("LANG", "es")]), Lang::Spanish);
        assert_eq!(lang(&[("LANG", "C.UTF-8")]), Lang::English);
        assert_eq!(lang(&[("LC_ALL", ""), ("LANG", "es_MX")]), Lang::Spanish);
        assert_eq!(lang(&[("LC_ALL", "C"), ("LANG", "es_ES")]), Lang::English);
        assert_eq!(lang(&[("LC_MESSAGES", "es_ES"), ("LANG", "en_GB")]), Lang::Spanish);
        assert_eq!(lang(&[("LANG", "est_EE")]), Lang::English);
    }

    #[test]
    fn the_words_of_the_practical() {
        let es = Lang::Spanish;
        assert_eq!(es.write_operation("a", 1), "Operación de escritura: clave = a, valor = 1");
        assert_eq!(es.submitted(7, 2), "Operación 7 sometida a 2");
        assert_eq!(es.read_operation("a"), "Operación de lectura: clave = a");
        assert_eq!(es.correct_value("a", "1"), "Valor correcto leído: a = 1");
    }

    #[test]
    fn the_same_in_english() {
        let en = Lang::English;
        assert_eq!(en.write_operation("a", 1), "Write operation: key = a, value = 1");
        assert_eq!(en.submitted(7, 2), "Operation 7 submitted to 2");
        assert_eq!(en.read_operation("a"), "Read operation: key = a");
        assert_eq!(en.correct_value("a", "1"), "Correct value read: a = 1");
    }

    #[test]
    fn a_wrong_value_shows_both() {
        for lang in [Lang::English, Lang::Spanish] {
            let line = lang.wrong_value("a", "5", "4");
            assert!(line.starts_with("ERROR: ") && line.contains('5') && line.contains('4'));
        }
    }
}
