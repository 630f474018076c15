//! Writing the format of pprof: profile.proto, in gzip.

use std::collections::HashMap;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use pprof::protos::{Function, Line, Location, Message, Profile, Sample, ValueType};

/// A profile that grows by stacks of addresses.
pub(super) struct Builder {
    profile: Profile,
    strings: HashMap<String, i64>,
    /// By address.
    locations: HashMap<usize, u64>,
    /// By name and file.
    functions: HashMap<(i64, i64), u64>,
}

impl Builder {
    /// Of values of these types and units, and with this period.
    pub(super) fn new(types: &[(&str, &str)], period: (&str, &str, i64)) -> Builder {
        let mut builder = Builder {
            profile: Profile::default(),
            strings: HashMap::new(),
            locations: HashMap::new(),
            functions: HashMap::new(),
        };
        // The first string is the empty one.
        builder.string("");
        builder.profile.sample_type = types.iter().map(|pair| builder.value_type(*pair)).collect();
        let (kind, unit, length) = period;
        builder.profile.period_type = Some(builder.value_type((kind, unit)));
        builder.profile.period = length;
        builder
    }

    /// The samples of a finer kind are shown first by these.
    pub(super) fn default_type(&mut self, name: &str) {
        self.profile.default_sample_type = self.string(name);
    }

    fn value_type(&mut self, (kind, unit): (&str, &str)) -> ValueType {
        ValueType {
            ty: self.string(kind),
            unit: self.string(unit),
        }
    }

    fn string(&mut self, text: &str) -> i64 {
        if let Some(&index) = self.strings.get(text) {
            return index;
        }
        let index = self.profile.string_table.len() as i64;
        self.profile.string_table.push(text.to_owned());
        self.strings.insert(text.to_owned(), index);
        index
    }

    /// Adds a stack, innermost address first, with a value of each type.
    pub(super) fn sample(&mut self, stack: &[usize], values: Vec<i64>) {
        let location_id = stack.iter().map(|&address| self.location(address)).collect();
        self.profile.sample.push(Sample {
            location_id,
            value: values,
            label: Vec::new(),
        });
    }

    fn location(&mut self, address: usize) -> u64 {
        if let Some(&id) = self.locations.get(&address) {
            return id;
        }
        let mut lines = Vec::new();
        let mut found = Vec::new();
        backtrace::resolve(address as *mut _, |symbol| {
            let name = symbol
                .name()
                .map_or_else(|| "?".to_owned(), |name| format!("{name:#}"));
            let file = symbol
                .filename()
                .map_or_else(String::new, |file| file.display().to_string());
            found.push((name, file, symbol.lineno().unwrap_or(0)));
        });
        for (name, file, line) in found {
            lines.push(Line {
                function_id: self.function(&name, &file),
                line: line.into(),
            });
        }
        let id = self.locations.len() as u64 + 1;
        self.locations.insert(address, id);
        self.profile.location.push(Location {
            id,
            address: address as u64,
            line: lines,
            ..Location::default()
        });
        id
    }

    fn function(&mut self, name: &str, file: &str) -> u64 {
        let (name, file) = (self.string(name), self.string(file));
        if let Some(&id) = self.functions.get(&(name, file)) {
            return id;
        }
        let id = self.functions.len() as u64 + 1;
        self.functions.insert((name, file), id);
        self.profile.function.push(Function {
            id,
            name,
            system_name: name,
            filename: file,
            ..Function::default()
        });
        id
    }

    /// The file.
    pub(super) fn finish(self) -> io::Result<Vec<u8>> {
        zipped(&self.profile)
    }
}

/// A profile as pprof reads it.
pub(super) fn zipped(profile: &Profile) -> io::Result<Vec<u8>> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(&profile.encode_to_vec())?;
    out.finish()
}
