// Package house holds the tests of the repository itself: that imports go down the floors only, that each package says
// once what it is for, and that the CNI binary stays small. The linter's depguard rules say the same of the floors, so
// that an editor shows it; these tests also cover what depguard cannot. It owns nothing.
package house
