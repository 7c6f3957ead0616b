"""The commands of `vidseek`, by what they are about. Each imports rooms and heavy libraries only when it runs."""
