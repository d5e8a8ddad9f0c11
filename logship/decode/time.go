package decode

// parseTime reads RFC 3339 with up to nine digits of fraction, as both formats write it, into nanoseconds since 1970.
// It is strict where time.Parse is (fields in range) and knows years 1970 to 2261, which int64 nanoseconds can hold.
func parseTime(b []byte) (int64, bool) {
	if len(b) < len("2006-01-02T15:04:05Z") || b[4] != '-' || b[7] != '-' || b[10] != 'T' || b[13] != ':' || b[16] != ':' {
		return 0, false
	}
	year := digits(b[0:2])*100 + digits(b[2:4])
	month, day := digits(b[5:7]), digits(b[8:10])
	hour, minute, second := digits(b[11:13]), digits(b[14:16]), digits(b[17:19])
	if year < 1970 || year > 2261 || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) ||
		hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59 {
		return 0, false
	}
	b = b[19:]
	nanos, scale := 0, 100_000_000
	if b[0] == '.' {
		i := 1
		for ; i < len(b) && b[i]-'0' <= 9; i++ {
			nanos += int(b[i]-'0') * scale
			scale /= 10
		}
		if i == 1 || i > 10 {
			return 0, false
		}
		b = b[i:]
	}
	offset, ok := zone(b)
	if !ok {
		return 0, false
	}
	seconds := days(year, month, day)*86400 + int64(hour*3600+minute*60+second) - offset
	return seconds*1_000_000_000 + int64(nanos), true
}

// digits reads two digits; anything else makes the sum negative enough to fail every range check.
func digits(b []byte) int {
	hi, lo := b[0]-'0', b[1]-'0'
	if hi > 9 || lo > 9 {
		return -1 << 20
	}
	return int(hi)*10 + int(lo)
}

func zone(b []byte) (seconds int64, ok bool) {
	if len(b) == 1 && b[0] == 'Z' {
		return 0, true
	}
	if len(b) != len("+07:00") || b[0] != '+' && b[0] != '-' || b[3] != ':' {
		return 0, false
	}
	h, m := digits(b[1:3]), digits(b[4:6])
	if h < 0 || h > 23 || m < 0 || m > 59 {
		return 0, false
	}
	seconds = int64(h*3600 + m*60)
	if b[0] == '-' {
		seconds = -seconds
	}
	return seconds, true
}

func daysIn(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// days counts from 1970-01-01 in the Gregorian calendar, with years that begin in March so that the leap day is last.
func days(year, month, day int) int64 {
	if month <= 2 {
		year, month = year-1, month+12
	}
	return int64(365*year + year/4 - year/100 + year/400 + (153*(month-3)+2)/5 + day - 1 - 719468)
}
