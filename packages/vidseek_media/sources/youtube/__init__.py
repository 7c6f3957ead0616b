"""Videos of YouTube, and of other sites that yt-dlp knows."""
