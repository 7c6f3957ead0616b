"""The page for people: Streamlit over the API alone. It opens no index and loads no model; see docs/page.md."""
